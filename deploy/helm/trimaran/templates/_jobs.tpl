{{- define "trimaran.loadtestName" -}}
{{- printf "%s-loadtest-%s" (include "trimaran.fullname" .) .Values.loadtest.run -}}
{{- end -}}

{{- define "trimaran.trainingName" -}}
{{- printf "%s-training-%s" (include "trimaran.fullname" .) .Values.training.run -}}
{{- end -}}

{{/* DNS, for pods whose network is closed otherwise. */}}
{{- define "trimaran.dns" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end -}}

{{/*
The Jobs of a load test. Call with (dict "top" $ "role" "single"|"master"|"worker" "parallelism" n "command" yaml).
*/}}
{{- define "trimaran.loadtestJob" -}}
{{- $top := .top -}}
{{- $loadtest := $top.Values.loadtest -}}
{{- $name := include "trimaran.loadtestName" $top -}}
{{- $component := ternary "loadtest-worker" "loadtest" (eq .role "worker") -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ ternary (printf "%s-workers" $name) $name (eq .role "worker") }}
  namespace: {{ $top.Release.Namespace }}
  labels:
    {{- include "trimaran.labels" (dict "top" $top "component" $component) | nindent 4 }}
spec:
  parallelism: {{ .parallelism }}
  completions: {{ .parallelism }}
  # A second try would measure something else.
  backoffLimit: 0
  template:
    metadata:
      labels:
        {{- include "trimaran.selector" (dict "top" $top "component" $component) | nindent 8 }}
        trimaran-loadtest: {{ $name }}
    spec:
      {{- include "trimaran.podSecurity" $top | nindent 6 }}
      restartPolicy: Never
      containers:
        - name: loadtest
          image: {{ $loadtest.image | quote }}
          imagePullPolicy: {{ $top.Values.image.pullPolicy }}
          {{- .command | nindent 10 }}
          env:
            {{- include "trimaran.writableHome" $top | nindent 12 }}
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
          {{- if eq .role "master" }}
          ports:
            - name: locust
              containerPort: 5557
          {{- end }}
          {{- include "trimaran.containerSecurity" $top | nindent 10 }}
          resources:
            {{- toYaml $loadtest.resources | nindent 12 }}
          volumeMounts:
            - name: tmp
              mountPath: /tmp
            - name: results
              mountPath: /results
      volumes:
        - name: tmp
          emptyDir:
            sizeLimit: {{ $top.Values.tmp.sizeLimit | quote }}
        - name: results
          {{- if and $loadtest.resultsClaim (ne .role "worker") }}
          persistentVolumeClaim:
            claimName: {{ $loadtest.resultsClaim | quote }}
          {{- else }}
          emptyDir: {}
          {{- end }}
{{- end -}}
