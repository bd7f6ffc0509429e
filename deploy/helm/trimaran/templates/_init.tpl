{{/* Init containers: copy the repository to the node, verify it. Both run to the end before the server starts. */}}
{{- define "trimaran.initContainers" -}}
{{- $copy := .Values.model.copy -}}
{{- if eq .Values.model.source "copy" }}
- name: copy-model
  image: {{ default (include "trimaran.image" .) $copy.fromImage | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  # A copy that was cut off is copied again: the verification below decides, not what is there already.
  command:
    - sh
    - -euc
    - cp -R "$FROM"/. /target/
  env:
    - name: FROM
      value: {{ ternary "/source" (default "/models" $copy.fromPath) (ne $copy.fromClaim "") | quote }}
  {{- include "trimaran.containerSecurity" . | nindent 2 }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
    - name: models
      mountPath: /target
    {{- if $copy.fromClaim }}
    - name: source
      mountPath: /source
      readOnly: true
      {{- with $copy.fromPath }}
      subPath: {{ . | quote }}
      {{- end }}
    {{- end }}
{{- end }}
{{- if or .Values.model.verify (eq .Values.model.source "copy") }}
- name: verify-model
  image: {{ include "trimaran.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  # The manifest in each version's checkpoint holds the sha256 of every file of it. A repository without one fails too.
  command:
    - sh
    - -euc
    - |
      found=no
      for manifest in /models/*/*/checkpoint/trimaran.json; do
        [ -f "$manifest" ] || continue
        found=yes
        trimaran inspect --verify "$(dirname "$manifest")"
      done
      if [ "$found" = no ]; then
        echo "error: /models holds no */*/checkpoint/trimaran.json: not a repository that trimaran export wrote" >&2
        exit 2
      fi
  env:
    {{- include "trimaran.writableHome" . | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  {{- include "trimaran.containerSecurity" . | nindent 2 }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
    {{- include "trimaran.modelMount" . | nindent 4 }}
    - name: tmp
      mountPath: /tmp
{{- end }}
{{- end -}}
