{{/*
All times follow from server.startSeconds and server.longestRequestSeconds.

A pod that is deleted runs its preStop hook (drainSeconds: endpoints and proxies learn that it leaves while it still
serves), then gets SIGTERM; `trimaran serve` hands Triton --exit-timeout-secs and kills what is left 10 s after it.
30 s cover that and the end of the processes, so the kubelet's SIGKILL never comes first.
*/}}
{{- define "trimaran.gracePeriod" -}}
{{- add .Values.server.drainSeconds .Values.server.longestRequestSeconds 30 -}}
{{- end -}}

{{/* How long the start-up probe waits: a minute longer than the server, which then ends with the reason in its log. */}}
{{- define "trimaran.startBudget" -}}
{{- add .Values.server.startSeconds 60 -}}
{{- end -}}

{{/* Call with (dict "budget" seconds "period" seconds): failures in a row that take at least the budget. */}}
{{- define "trimaran.failures" -}}
{{- div (add (int .budget) (int .period) -1) (int .period) -}}
{{- end -}}

{{/* A time such as 500ms, 2m or 1.5h in whole seconds, rounded up. Call with a text that trimaran.checkFormats accepts. */}}
{{- define "trimaran.seconds" -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- $parts := splitList "." $number -}}
{{- $thousandths := mul 1000 (atoi (first $parts)) -}}
{{- if gt (len $parts) 1 -}}
{{- $thousandths = add $thousandths (atoi (substr 0 3 (printf "%s000" (last $parts)))) -}}
{{- end -}}
{{- $milliseconds := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (trimPrefix $number .) -}}
{{- div (add (mul $thousandths $milliseconds) 999999) 1000000 -}}
{{- end -}}
