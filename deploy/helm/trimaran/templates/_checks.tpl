{{/* What a schema cannot say: values that contradict each other or the cluster. */}}
{{- define "trimaran.checks" -}}
{{- include "trimaran.checkFormats" . -}}
{{- include "trimaran.checkName" . -}}
{{- include "trimaran.checkModel" . -}}
{{- include "trimaran.checkRollout" . -}}
{{- include "trimaran.checkAutoscaling" . -}}
{{- include "trimaran.checkRoutes" . -}}
{{- include "trimaran.checkLoadtest" . -}}
{{- include "trimaran.checkTraining" . -}}
{{- end -}}

{{/* "-loadtest-RUN-workers" with a RUN of 10 still fits into the 63 characters of a label. A silent cut could make two
releases one. */}}
{{- define "trimaran.checkName" -}}
{{- $name := include "trimaran.fullname" . -}}
{{- if gt (len $name) 35 -}}
{{- fail (printf "the name %q of this release's objects has %d characters, 35 are accepted; choose a shorter release name or set fullnameOverride" $name (len $name)) -}}
{{- end -}}
{{- end -}}

{{- define "trimaran.checkModel" -}}
{{- $model := .Values.model -}}
{{- $kubernetes := .Capabilities.KubeVersion.Version -}}
{{- if and (eq $model.source "pvc") (not $model.pvc.claimName) -}}
{{- fail "model.pvc.claimName is empty; name the claim that holds the model repository, or choose another model.source" -}}
{{- end -}}
{{- if eq $model.source "copy" -}}
{{- if eq (empty $model.copy.fromClaim) (empty $model.copy.fromImage) -}}
{{- fail (printf "model.copy.fromClaim is %q and model.copy.fromImage is %q; give exactly one of them to copy from" $model.copy.fromClaim $model.copy.fromImage) -}}
{{- end -}}
{{- if and $model.copy.fromPath (eq (hasPrefix "/" $model.copy.fromPath) (not (empty $model.copy.fromClaim))) -}}
{{- fail (printf "model.copy.fromPath is %q; in a claim it is relative (models/llm), in an image absolute (/models)" $model.copy.fromPath) -}}
{{- end -}}
{{- end -}}
{{- if eq $model.source "image" -}}
{{- if not $model.image.reference -}}
{{- fail "model.image.reference is empty; give the OCI image whose root is the model repository" -}}
{{- end -}}
{{- if semverCompare "<1.31.0-0" $kubernetes -}}
{{- fail (printf "model.source is image, but Kubernetes %s has no image volumes (they came with 1.31); use model.source copy with model.copy.fromImage, which works everywhere" $kubernetes) -}}
{{- end -}}
{{- if and (semverCompare "<1.35.0-0" $kubernetes) (not $model.image.featureGate) -}}
{{- fail (printf "model.source is image, but in Kubernetes %s image volumes are behind the feature gate ImageVolume (on by default from 1.35); switch it on in the cluster and set model.image.featureGate to true, or use model.source copy with model.copy.fromImage" $kubernetes) -}}
{{- end -}}
{{- if and $model.image.subPath (semverCompare "<1.33.0-0" $kubernetes) -}}
{{- fail (printf "model.image.subPath is %q, but Kubernetes %s cannot mount a folder of an image volume (1.33 can); put the repository in the image's root" $model.image.subPath $kubernetes) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "trimaran.checkRollout" -}}
{{- $mode := .Values.model.pvc.accessMode -}}
{{- if and (eq .Values.model.source "pvc") (hasPrefix "ReadWriteOnce" $mode) -}}
{{- if ne .Values.strategy "Recreate" -}}
{{- fail (printf "model.pvc.accessMode is %s and strategy is %s: the new pod could not mount the volume while the old one holds it, and the rollout would hang. Set strategy to Recreate (the endpoint is down while a new pod loads), or use a ReadOnlyMany claim or model.source copy" $mode .Values.strategy) -}}
{{- end -}}
{{- if or (gt (int .Values.replicas) 1) (ne .Values.autoscaling.mode "none") -}}
{{- fail (printf "model.pvc.accessMode is %s, so there can be one pod, but replicas is %d and autoscaling.mode is %s; use a ReadOnlyMany claim or model.source copy for more" $mode (int .Values.replicas) .Values.autoscaling.mode) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (eq (int .Values.podDisruptionBudget.maxUnavailable) 0) (eq .Values.autoscaling.mode "none") (eq (int .Values.replicas) 1) -}}
{{- fail "podDisruptionBudget.maxUnavailable is 0 with one replica: no node under it could ever be drained; set it to 1 or run more replicas" -}}
{{- end -}}
{{- end -}}

{{- define "trimaran.checkAutoscaling" -}}
{{- $scaling := .Values.autoscaling -}}
{{- $mode := $scaling.mode -}}
{{- $set := list -}}
{{- if $scaling.cpu.utilization }}{{ $set = append $set "autoscaling.cpu" }}{{ end -}}
{{- if or $scaling.metrics.running $scaling.metrics.waiting $scaling.metrics.pending }}{{ $set = append $set "autoscaling.metrics" }}{{ end -}}
{{- if or $scaling.keda.serverAddress $scaling.keda.requestsPerPod }}{{ $set = append $set "autoscaling.keda" }}{{ end -}}
{{- range $set -}}
{{- if ne . (printf "autoscaling.%s" $mode) -}}
{{- fail (printf "autoscaling.mode is %s, but %s is set too: two autoscalers on one Deployment fight. Choose one mode and leave the settings of the others at 0 or empty" $mode .) -}}
{{- end -}}
{{- end -}}
{{- if and (ne $mode "none") (empty $set) -}}
{{- $targets := dict "cpu" "autoscaling.cpu.utilization (such as 70)" "metrics" "at least one of autoscaling.metrics.running, waiting and pending" "keda" "autoscaling.keda.serverAddress and requestsPerPod" -}}
{{- fail (printf "autoscaling.mode is %s, but it has no target; set %s" $mode (get $targets $mode)) -}}
{{- end -}}
{{- if and (eq $mode "keda") (or (not $scaling.keda.serverAddress) (not $scaling.keda.requestsPerPod)) -}}
{{- fail "autoscaling.mode is keda; it needs both autoscaling.keda.serverAddress and autoscaling.keda.requestsPerPod" -}}
{{- end -}}
{{- if and (ne $mode "none") (lt (int $scaling.maxReplicas) (int $scaling.minReplicas)) -}}
{{- fail (printf "autoscaling.maxReplicas is %d, less than autoscaling.minReplicas, %d" (int $scaling.maxReplicas) (int $scaling.minReplicas)) -}}
{{- end -}}
{{- if and (eq $mode "cpu") (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- fail "autoscaling.mode is cpu, which is a share of the CPU request; set resources.requests.cpu" -}}
{{- end -}}
{{- end -}}

{{- define "trimaran.checkRoutes" -}}
{{- if and .Values.front.serviceName (not .Values.front.paths) -}}
{{- fail (printf "front.serviceName is %q, but front.paths is empty; list the path prefixes it answers, such as /v1" .Values.front.serviceName) -}}
{{- end -}}
{{- if and .Values.front.paths (not .Values.front.serviceName) -}}
{{- fail "front.paths is set without front.serviceName; the paths to Triton itself are fixed, so that its admin API stays inside" -}}
{{- end -}}
{{- if and .Values.ingress.canaryWeight (not .Values.ingress.nginx) -}}
{{- fail "ingress.canaryWeight is an ingress-nginx canary, but ingress.nginx is false; use httpRoute.canary, or your controller's own annotations" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled is true, but httpRoute.parentRefs is empty; name the Gateway, such as [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if ne (empty .Values.httpRoute.canary.serviceName) (eq (int .Values.httpRoute.canary.weight) 0) -}}
{{- if empty .Values.httpRoute.canary.serviceName -}}
{{- fail "httpRoute.canary.weight is set without httpRoute.canary.serviceName; name the HTTP Service of the canary's release" -}}
{{- end -}}
{{- end -}}
{{- with .Values.httpRoute.canary.serviceName -}}
{{- $stable := default (include "trimaran.fullname" $) $.Values.front.serviceName -}}
{{- /* A canary's own release may have its values from the first one. */}}
{{- if and (not $.Values.httpRoute.enabled) (not $.Values.networkPolicy.routedByAnotherRelease) -}}
{{- fail (printf "httpRoute.canary.serviceName is %q, but httpRoute.enabled is false: the canary would get no request. Set it to true with its parentRefs; an ingress-nginx canary is ingress.canaryWeight in the canary's own release" .) -}}
{{- end -}}
{{- if and $.Values.httpRoute.enabled (eq . $stable) -}}
{{- fail (printf "httpRoute.canary.serviceName is %q, which gets the other share as well; name the HTTP Service of the canary's release, such as llm-canary-trimaran" .) -}}
{{- end -}}
{{- end -}}
{{- $route := .Values.httpRoute -}}
{{- if and $route.enabled (eq (add (int $route.weight) (int $route.canary.weight)) 0) -}}
{{- fail "httpRoute.weight and httpRoute.canary.weight are both 0: the Gateway would answer every request with 500; set one of them above 0" -}}
{{- end -}}
{{- end -}}

{{- define "trimaran.checkLoadtest" -}}
{{- $loadtest := .Values.loadtest -}}
{{- with $loadtest.distributed -}}
{{- if and .locustfile (not .workers) -}}
{{- fail (printf "loadtest.distributed.locustfile is %q, but loadtest.distributed.workers is 0, which runs `trimaran loadtest`; set workers to 1 or more, or leave locustfile empty" .locustfile) -}}
{{- end -}}
{{- end -}}
{{- if $loadtest.enabled -}}
{{- range $loadtest.args -}}
{{- if regexMatch "^(--duration|--run-time|-t)(=|$)" . -}}
{{- fail (printf "loadtest.args holds %q; set loadtest.duration, which the Job's deadline is held against" .) -}}
{{- end -}}
{{- end -}}
{{- $wait := ternary 0 (int $loadtest.readySeconds) (not (empty $loadtest.url)) -}}
{{- $start := int .Values.server.startSeconds -}}
{{- if and $wait (lt $wait $start) -}}
{{- fail (printf "loadtest.readySeconds is %d, but the server may take %d s to start (server.startSeconds), and the load test would fail before; set it to at least that, or to 0 for a server that is ready already" $wait $start) -}}
{{- end -}}
{{- /* Images are pulled and processes start; at the end requests finish and the report is written. Locust's master waits
five minutes for its workers. */}}
{{- $around := ternary 600 300 (gt (int $loadtest.distributed.workers) 0) -}}
{{- $needs := add $wait (include "trimaran.seconds" $loadtest.duration) $around -}}
{{- if and $loadtest.deadlineSeconds (lt (int $loadtest.deadlineSeconds) (int $needs)) -}}
{{- fail (printf "loadtest.deadlineSeconds is %d, which would end the Job before its test: it may wait %d s for the model (loadtest.readySeconds), send requests for %s (loadtest.duration) and take %d s around that. Set it to at least %d, or to 0 for no limit" (int $loadtest.deadlineSeconds) $wait $loadtest.duration $around (int $needs)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "trimaran.checkTraining" -}}
{{- with .Values.training -}}
{{- $byAccelerate := eq .launcher "accelerate" -}}
{{- if ne $byAccelerate (not (empty .accelerateConfig)) -}}
{{- fail (printf "training.launcher is %s and training.accelerateConfig is %q; the launcher accelerate needs its config file, such as /data/fsdp2.yaml, and torchrun has none" .launcher .accelerateConfig) -}}
{{- end -}}
{{- if and $byAccelerate (ne .kind "job") -}}
{{- fail (printf "training.launcher is accelerate and training.kind is %s; Kubeflow Trainer gives nodes and ranks to torchrun only: set training.kind to job, or training.launcher to torchrun" .kind) -}}
{{- end -}}
{{- if and $byAccelerate (eq (mul .nodes .processesPerNode) 1) -}}
{{- fail "training.launcher is accelerate, but training.nodes and training.processesPerNode are 1: one process needs no launcher. Set training.launcher to torchrun and training.accelerateConfig to \"\", or one of the numbers above 1" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Formats are looked at here and not by patterns in the schema: helm would print the pattern and nothing else. */}}
{{- define "trimaran.checkFormats" -}}
{{- $quantity := "^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$" -}}
{{- $values := .Values -}}
{{- $sizes := dict "tmp.sizeLimit" $values.tmp.sizeLimit "model.copy.sizeLimit" $values.model.copy.sizeLimit "training.shmSizeLimit" $values.training.shmSizeLimit -}}
{{- if $values.shm.sizeLimit -}}
{{- $_ := set $sizes "shm.sizeLimit" $values.shm.sizeLimit -}}
{{- end -}}
{{- range $prefix, $resources := dict "resources" $values.resources "loadtest.resources" $values.loadtest.resources "training.resources" $values.training.resources -}}
{{- range $kind, $amounts := $resources -}}
{{- range $name, $amount := $amounts -}}
{{- $_ := set $sizes (printf "%s.%s.%s" $prefix $kind $name) $amount -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $amount := $sizes -}}
{{- if not (regexMatch $quantity (toString $amount)) -}}
{{- fail (printf "%s is %q; accepted: a Kubernetes quantity such as 2, 500m, 512Mi or 4Gi" $name (toString $amount)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $time := dict "podMonitor.interval" $values.podMonitor.interval "loadtest.duration" $values.loadtest.duration -}}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?(ms|s|m|h)$" $time) -}}
{{- fail (printf "%s is %q; accepted: a time such as 15s, 2m or 1h" $name $time) -}}
{{- end -}}
{{- end -}}
{{- range $values.httpRoute.hostnames -}}
{{- if or (not (regexMatch "^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" .)) (regexMatch "^[0-9.]+$" .) -}}
{{- fail (printf "httpRoute.hostnames holds %q; accepted: a host name in lower case without a port, such as llm.example.com or *.example.com" .) -}}
{{- end -}}
{{- end -}}
{{- range $values.front.paths -}}
{{- if regexMatch "//|/[.][.]?(/|$)|%2[fF]|#" . -}}
{{- fail (printf "front.paths holds %q; accepted: a plain absolute path such as /v1, without //, /./, /../, %%2F and #" .) -}}
{{- end -}}
{{- end -}}
{{- if and $values.image.digest (not (regexMatch "^sha256:[0-9a-f]{64}$" $values.image.digest)) -}}
{{- fail (printf "image.digest is %q; accepted: sha256: and 64 hexadecimal digits, as `docker buildx imagetools inspect` prints it" $values.image.digest) -}}
{{- end -}}
{{- range $name, $run := dict "loadtest.run" $values.loadtest.run "training.run" $values.training.run -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?$" $run) -}}
{{- fail (printf "%s is %q; accepted: 1 to 10 lower-case letters, digits and '-', because it ends the Job's name" $name $run) -}}
{{- end -}}
{{- end -}}
{{- end -}}
