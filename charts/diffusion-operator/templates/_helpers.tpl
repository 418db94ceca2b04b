{{- define "diffusion-operator.name" -}}
{{ .Values.nameOverride | default "diffusion-operator" }}
{{- end }}

{{- /* Name of the operator's objects; those of several parts begin with it. */ -}}
{{- define "diffusion-operator.fullname" -}}
{{ .Values.fullnameOverride | default (include "diffusion-operator.name" .) }}
{{- end }}

{{- define "diffusion-operator.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- /* A version as a label may hold it: build metadata (`1.2.0+9414ed9`) has a character that labels have not. */ -}}
{{- define "diffusion-operator.versionLabel" -}}
{{ . | replace "+" "_" | trunc 63 | trimAll "-_." }}
{{- end }}

{{- define "diffusion-operator.labels" -}}
{{ include "diffusion-operator.selector" . }}
app.kubernetes.io/version: {{ include "diffusion-operator.versionLabel" .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ include "diffusion-operator.versionLabel" (printf "%s-%s" .Chart.Name .Chart.Version) }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "diffusion-operator.selector" -}}
app.kubernetes.io/name: {{ include "diffusion-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /*
Metadata of one object.
  root: the chart's context.
  name: of the object.
  namespace: the operator's own where it is not given.
  cluster: true for an object without namespace.
  labels, annotations: more of them; they win over the common ones.
*/ -}}
{{- define "diffusion-operator.metadata" -}}
name: {{ .name }}
{{- if not .cluster }}
namespace: {{ .namespace | default (include "diffusion-operator.namespace" .root) }}
{{- end }}
labels:
  {{- include "diffusion-operator.labels" .root | nindent 2 }}
  {{- with .labels }}{{ toYaml . | nindent 2 }}{{ end }}
{{- include "diffusion-operator.annotations" . }}
{{- end }}

{{- /* The same dict; nothing where there are none. */ -}}
{{- define "diffusion-operator.annotations" -}}
{{- with merge dict (.annotations | default dict) .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /*
repository:tag, or repository@digest.
  root: the chart's context.
  name: below `images`, for the message.
  image: its values.
A repository that names its registry (HOST.DOMAIN/, HOST:PORT/, localhost/) is taken as it is.
*/ -}}
{{- define "diffusion-operator.image" -}}
{{- $repository := .image.repository }}
{{- $registry := (.root.Values.global).imageRegistry | default .root.Values.images.registry }}
{{- if and $registry (not (regexMatch "^(localhost|[^/]*[.:][^/]*)/" $repository)) }}
{{- $repository = printf "%s/%s" (trimSuffix "/" $registry) $repository }}
{{- end }}
{{- if not (contains "/" $repository) }}
{{- fail (printf "images.%s: %q names no registry; set images.registry to the one that holds the images, as in --set images.registry=registry.example.com/project." .name $repository) }}
{{- end }}
{{- if .image.digest }}{{ $repository }}@{{ .image.digest }}
{{- else }}{{ $repository }}:{{ required (printf "images.%s needs a tag or a digest" .name) .image.tag }}
{{- end }}
{{- end }}

{{- /* Names of the pull secrets of all pods, as a YAML list. */ -}}
{{- define "diffusion-operator.pullSecrets" -}}
{{- $names := .Values.images.pullSecrets }}
{{- range concat (((.Values.global).imagePullSecrets) | default list) .Values.imagePullSecrets }}
{{- if kindIs "string" . }}{{ $names = append $names . }}{{ else }}{{ $names = append $names .name }}{{ end }}
{{- end }}
{{- $names | uniq | toYaml }}
{{- end }}

{{- /* The field of a pod, or nothing. */ -}}
{{- define "diffusion-operator.imagePullSecrets" -}}
{{- with include "diffusion-operator.pullSecrets" . | fromYamlArray }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Of the chart's own pods. They have no volume with an owner, so `runAs.fsGroup` is not theirs. */ -}}
{{- define "diffusion-operator.podSecurityContext" -}}
{{- $context := dict }}
{{- range $field, $key := dict "runAsUser" "user" "runAsGroup" "group" }}
{{- $value := index ($.Values.runAs | default dict) $key }}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $context $field (int64 $value) }}{{ end }}
{{- end }}
{{- merge dict (.Values.podSecurityContext | default dict) $context | toYaml }}
{{- end }}

{{- /*
What the operator is told about `runAs`: nothing where it is its own default.
  root: the chart's context.
  key: user, group or fsGroup.
*/ -}}
{{- define "diffusion-operator.runAs" -}}
{{- $value := index (.root.Values.runAs | default dict) .key }}
{{- if kindIs "invalid" $value }}none
{{- else if ne (int64 $value) 65532 }}{{ int64 $value }}
{{- end }}
{{- end }}

{{- /* Defaults of all Jobs as JSON, without what is empty; nothing where all is. */ -}}
{{- define "diffusion-operator.jobs" -}}
{{- $jobs := dict }}
{{- range $field, $value := .Values.jobs }}
{{- if $value }}{{ $_ := set $jobs $field $value }}{{ end }}
{{- end }}
{{- with $jobs }}{{ toJson . }}{{ end }}
{{- end }}

{{- /* Twice the same name in a pod is refused by server-side apply, with words that name nobody. */ -}}
{{- define "diffusion-operator.checkExtras" -}}
{{- range .Values.extraEnv }}
{{- if or (has .name (list "HOME" "HF_ENDPOINT")) (hasPrefix "DIFFUSION_OPERATOR_" .name) }}
{{- fail (printf "extraEnv: the chart sets %s itself; use its value of the chart instead." .name) }}
{{- end }}
{{- end }}
{{- range $value, $names := dict "extraEnv" .Values.extraEnv "extraVolumes" (append .Values.extraVolumes (dict "name" "tmp")) }}
{{- $earlier := list }}
{{- range $names }}
{{- if has .name $earlier }}{{ fail (printf "%s: the pod has %s already; give it another name." $value .name) }}{{ end }}
{{- $earlier = append $earlier .name }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Namespaces that the chart knows to hold pipelines, as a YAML list. */ -}}
{{- define "diffusion-operator.pipelineNamespaces" -}}
{{- concat .Values.watchNamespaces .Values.networkPolicy.pipelineNamespaces | uniq | toYaml }}
{{- end }}

{{- define "diffusion-operator.dnsEgress" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{- /* Ports that a fetch connects to, as a YAML list: those of hubs and archives, of the proxies, and of the hub's own address. */ -}}
{{- define "diffusion-operator.fetchPorts" -}}
{{- $ports := list }}
{{- range .Values.networkPolicy.hubPorts }}{{ $ports = append $ports (int .) }}{{ end }}
{{- range list .Values.proxy.http .Values.proxy.https .Values.hub.endpoint | compact }}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- $ports = append $ports (int $port) }}
{{- end }}
{{- $ports | uniq | toYaml }}
{{- end }}

{{- /* The operator as a peer of serving pods. */ -}}
{{- define "diffusion-operator.operatorPeer" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ include "diffusion-operator.namespace" . }}
  podSelector:
    matchLabels: {{- include "diffusion-operator.selector" . | nindent 6 }}
{{- end }}

{{- define "diffusion-operator.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "diffusion-operator.fullname" .) }}
{{- end }}

{{- /* The exact verbs that the operator uses; Secrets are not among them. */ -}}
{{- define "diffusion-operator.rules" -}}
- apiGroups: [diffusion-operator.io]
  resources: [diffusionpipelines]
  verbs: [get, list, watch]
- apiGroups: [diffusion-operator.io]
  resources: [diffusionpipelines/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# Only used where a pipeline has an API.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# Only used where KEDA is installed.
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, create, patch, delete]
# Only used where a pipeline names a Gateway.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, grpcroutes]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end }}

{{- /* In the operator's own namespace: the Lease that its processes elect their leader with. */ -}}
{{- define "diffusion-operator.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: ["{{ include `diffusion-operator.fullname` . }}"]
  verbs: [get, patch]
{{- end }}
