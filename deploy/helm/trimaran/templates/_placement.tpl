{{/* Where the server's pods go. */}}
{{- define "trimaran.placement" -}}
{{- $values := .Values -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $values.tolerations $values.gpu.count }}
tolerations:
  {{- if $values.gpu.count }}
  - key: {{ $values.gpu.resourceName | quote }}
    operator: Exists
    effect: NoSchedule
  {{- end }}
  {{- with $values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpread }}
{{- if or .zone .node }}
topologySpreadConstraints:
  {{- with .zone }}
  - topologyKey: topology.kubernetes.io/zone
    maxSkew: 1
    whenUnsatisfiable: {{ . }}
    labelSelector:
      matchLabels:
        {{- include "trimaran.selector" (dict "top" $ "component" "server") | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
  {{- with .node }}
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    whenUnsatisfiable: {{ . }}
    labelSelector:
      matchLabels:
        {{- include "trimaran.selector" (dict "top" $ "component" "server") | nindent 8 }}
    # Only pods of the same rollout are counted; old ones leave anyway.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Call with (dict "resources" ... "gpus" n "name" ...). GPUs belong to the limits; requests follow them. */}}
{{- define "trimaran.resources" -}}
{{- $limits := deepCopy (default dict .resources.limits) -}}
{{- if .gpus -}}
{{- $_ := set $limits .name (int .gpus) -}}
{{- end -}}
{{- toYaml (dict "requests" (default dict .resources.requests) "limits" $limits) -}}
{{- end -}}
