{{- define "diffusion-operator.labels" -}}
app.kubernetes.io/name: diffusion-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "diffusion-operator.selector" -}}
app.kubernetes.io/name: diffusion-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* repository:tag, or repository@digest. */ -}}
{{- define "diffusion-operator.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ required (printf "image %s needs a tag or a digest" .repository) .tag }}{{ end }}
{{- end }}

{{- /* Namespaces that the chart knows to hold pipelines, as a YAML list. */ -}}
{{- define "diffusion-operator.pipelineNamespaces" -}}
{{- concat .Values.watchNamespaces .Values.networkPolicy.pipelineNamespaces | uniq | toYaml }}
{{- end }}

{{- define "diffusion-operator.dnsEgress" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}

{{- define "diffusion-operator.serviceAccount" -}}
{{ .Values.serviceAccount.name | default "diffusion-operator" }}
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
  verbs: [get, list, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, create, patch, delete]
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
  verbs: [create]
{{- end }}

{{- /* In the operator's own namespace: the Lease that its processes elect their leader with. */ -}}
{{- define "diffusion-operator.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [diffusion-operator]
  verbs: [get, patch]
{{- end }}
