{{/*
The calls of the model and of its unary front, NAME_infer. A prefix such as /v2 would also open loading and unloading,
tracing, logging and shared memory to the world.
*/}}
{{- define "trimaran.paths" -}}
{{- $model := .Values.model.name -}}
- /v2/health/ready
- /v2/models/{{ $model }}
- /v2/models/{{ $model }}/ready
- /v2/models/{{ $model }}/generate
- /v2/models/{{ $model }}/generate_stream
- /v2/models/{{ $model }}_infer
- /v2/models/{{ $model }}_infer/ready
- /v2/models/{{ $model }}_infer/infer
{{- end -}}
