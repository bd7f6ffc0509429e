{{- define "trimaran.probes" -}}
{{- $probes := .Values.probes -}}
{{- $modelReady := printf "/v2/models/%s/ready" .Values.model.name -}}
{{- $budget := include "trimaran.startBudget" . -}}
# Until this one succeeds the kubelet asks neither of the others.
startupProbe:
  httpGet:
    path: {{ $modelReady }}
    # A number and not the name: podman, which plays these manifests too, does not resolve names here.
    port: 8000
  periodSeconds: {{ $probes.startup.periodSeconds }}
  timeoutSeconds: {{ $probes.readiness.timeoutSeconds }}
  failureThreshold: {{ include "trimaran.failures" (dict "budget" $budget "period" $probes.startup.periodSeconds) }}
readinessProbe:
  httpGet:
    path: {{ $modelReady }}
    port: 8000
  periodSeconds: {{ $probes.readiness.periodSeconds }}
  timeoutSeconds: {{ $probes.readiness.timeoutSeconds }}
  failureThreshold: {{ $probes.readiness.failureThreshold }}
livenessProbe:
  httpGet:
    {{- if eq $probes.liveness.check "model" }}
    path: {{ $modelReady }}
    {{- else }}
    path: /v2/health/live
    {{- end }}
    port: 8000
  periodSeconds: {{ $probes.liveness.periodSeconds }}
  timeoutSeconds: {{ $probes.liveness.timeoutSeconds }}
  {{- if eq $probes.liveness.check "model" }}
  # Longer than any load may take: a model that was unloaded and loads again is left alone.
  failureThreshold: {{ include "trimaran.failures" (dict "budget" $budget "period" $probes.liveness.periodSeconds) }}
  {{- else }}
  failureThreshold: {{ $probes.liveness.failureThreshold }}
  {{- end }}
{{- end -}}
