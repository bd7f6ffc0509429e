{{- define "trimaran.loadtestName" -}}
{{- printf "%s-loadtest-%s" (include "trimaran.fullname" .) .Values.loadtest.run -}}
{{- end -}}

{{- define "trimaran.trainingName" -}}
{{- printf "%s-training-%s" (include "trimaran.fullname" .) .Values.training.run -}}
{{- end -}}

{{/* The Job and the server are made together, and a load test of a model that still loads fails at once. Workers wait
too: they look for their master for five minutes only. */}}
{{- define "trimaran.waitForModel" -}}
- name: wait-for-model
  image: {{ .Values.loadtest.image | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - python3
    - -c
    - |
      import http.client, os, sys, time, urllib.request
      url, seconds = os.environ["URL"], float(os.environ["READY_SECONDS"])
      end = time.monotonic() + seconds
      while True:
          try:
              urllib.request.urlopen(url, timeout=5).close()
              sys.exit(0)
          except (OSError, http.client.HTTPException) as error:
              if time.monotonic() > end:
                  sys.exit(f"error: {url} was not ready within {seconds:g} s ({error}): see the server's log, or raise loadtest.readySeconds")
          time.sleep(min(2, seconds / 100))
  env:
    {{- include "trimaran.writableHome" . | nindent 4 }}
    - name: URL
      value: http://{{ include "trimaran.fullname" . }}.{{ .Release.Namespace }}.svc:8000/v2/models/{{ .Values.model.name }}/ready
    - name: READY_SECONDS
      value: {{ .Values.loadtest.readySeconds | int | quote }}
  terminationMessagePolicy: FallbackToLogsOnError
  {{- include "trimaran.containerSecurity" . | nindent 2 }}
  resources:
    {{- toYaml .Values.loadtest.resources | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
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
  {{- with $loadtest.deadlineSeconds }}
  activeDeadlineSeconds: {{ . | int }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- include "trimaran.selector" (dict "top" $top "component" $component) | nindent 8 }}
        trimaran-loadtest: {{ $name }}
    spec:
      {{- include "trimaran.podSecurity" $top | nindent 6 }}
      restartPolicy: Never
      {{- if and $loadtest.readySeconds (not $loadtest.url) }}
      initContainers:
        {{- include "trimaran.waitForModel" $top | nindent 8 }}
      {{- end }}
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
