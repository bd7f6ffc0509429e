{{/* The pod of one training node, for the Job and for the TrainingRuntime. Call with (dict "top" $ "start" list "rank" bool). */}}
{{- define "trimaran.trainingPod" -}}
{{- $top := .top -}}
{{- $training := $top.Values.training -}}
{{- include "trimaran.podSecurity" $top }}
restartPolicy: Never
terminationGracePeriodSeconds: {{ $training.gracePeriodSeconds }}
{{- if $training.gpus }}
tolerations:
  - key: {{ $top.Values.gpu.resourceName | quote }}
    operator: Exists
    effect: NoSchedule
{{- end }}
containers:
  # Kubeflow Trainer fills in the container of this name.
  - name: node
    image: {{ $training.image | quote }}
    imagePullPolicy: {{ $top.Values.image.pullPolicy }}
    command:
      {{- concat .start (list "train") $training.args | toYaml | nindent 6 }}
    env:
      {{- include "trimaran.writableHome" $top | nindent 6 }}
      {{- if .rank }}
      - name: NODE_RANK
        valueFrom:
          fieldRef:
            fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
      {{- end }}
      # torchrun kills its processes so many seconds after it has passed SIGTERM on; by itself after 30.
      - name: TORCH_ELASTIC_SHUTDOWN_TIMEOUT
        value: {{ max 1 (sub (int $training.gracePeriodSeconds) 5) | quote }}
      {{- with $training.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    terminationMessagePolicy: FallbackToLogsOnError
    {{- include "trimaran.containerSecurity" $top | nindent 4 }}
    resources:
      {{- include "trimaran.resources" (dict "resources" $training.resources "gpus" $training.gpus "name" $top.Values.gpu.resourceName) | nindent 6 }}
    volumeMounts:
      - name: data
        mountPath: /data
        readOnly: true
      - name: output
        mountPath: /output
      - name: shm
        mountPath: /dev/shm
      - name: tmp
        mountPath: /tmp
volumes:
  - name: data
    persistentVolumeClaim:
      claimName: {{ $training.dataClaim | quote }}
  - name: output
    persistentVolumeClaim:
      claimName: {{ $training.outputClaim | quote }}
  - name: shm
    emptyDir:
      medium: Memory
      sizeLimit: {{ $training.shmSizeLimit | quote }}
  - name: tmp
    emptyDir:
      sizeLimit: {{ $top.Values.tmp.sizeLimit | quote }}
{{- end -}}
