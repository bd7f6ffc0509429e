{{/* What every pod of this chart has: no token, no root, nothing writable but what is mounted. */}}
{{- define "trimaran.podSecurity" -}}
serviceAccountName: {{ include "trimaran.serviceAccount" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.podSecurity.runAsUser }}
  runAsUser: {{ . | int64 }}
  runAsGroup: {{ . | int64 }}
  {{- end }}
  {{- with .Values.podSecurity.fsGroup }}
  fsGroup: {{ . | int64 }}
  # Changing the owner of every file of a large model at each start takes minutes.
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "trimaran.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Libraries write caches under HOME: the image's home is read-only here, /tmp is not. */}}
{{- define "trimaran.writableHome" -}}
- name: HOME
  value: /tmp
{{- end -}}

{{/* The Triton model repository as a volume named "models". */}}
{{- define "trimaran.modelVolumes" -}}
{{- $model := .Values.model -}}
{{- if eq $model.source "pvc" }}
- name: models
  persistentVolumeClaim:
    claimName: {{ $model.pvc.claimName | quote }}
    {{- if eq $model.pvc.accessMode "ReadOnlyMany" }}
    readOnly: true
    {{- end }}
{{- else if eq $model.source "image" }}
- name: models
  image:
    reference: {{ $model.image.reference | quote }}
    pullPolicy: {{ $model.image.pullPolicy }}
{{- else }}
- name: models
  emptyDir:
    sizeLimit: {{ $model.copy.sizeLimit | quote }}
{{- with $model.copy.fromClaim }}
- name: source
  persistentVolumeClaim:
    claimName: {{ . | quote }}
    readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "trimaran.modelMount" -}}
- name: models
  mountPath: /models
  readOnly: true
  {{- $subPath := "" }}
  {{- if eq .Values.model.source "pvc" }}{{ $subPath = .Values.model.pvc.subPath }}{{ end }}
  {{- if eq .Values.model.source "image" }}{{ $subPath = .Values.model.image.subPath }}{{ end }}
  {{- with $subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end -}}
