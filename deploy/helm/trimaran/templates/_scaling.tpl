{{/* Up at once, one pod after another down: a removed pod costs a model load when the load comes back. */}}
{{- define "trimaran.scalingBehavior" -}}
behavior:
  scaleUp:
    stabilizationWindowSeconds: 0
    policies:
      - type: Percent
        value: 100
        periodSeconds: 60
      - type: Pods
        value: 2
        periodSeconds: 60
  scaleDown:
    stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownSeconds }}
    policies:
      - type: Pods
        value: 1
        periodSeconds: 60
{{- end -}}
