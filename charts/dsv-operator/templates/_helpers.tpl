{{/* Everything is named dsv-operator: the roles, policies and definitions are the cluster's, so there is one release. */}}
{{- define "dsv.labels" -}}
app.kubernetes.io/name: dsv-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "dsv.selector" -}}
app.kubernetes.io/name: dsv-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Of one image: registry, repository, and digest or tag. Takes a list of the root and the image's values. */}}
{{- define "dsv.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := $image.repository -}}
{{- with $root.Values.imageRegistry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if $image.digest }}{{ $name }}@{{ $image.digest }}{{ else }}{{ $name }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end }}

{{/* Where engines dial: the Service first, then what leads in from outside. */}}
{{- define "dsv.endpoints" -}}
{{- $service := printf "dsv-operator-channel.%s.svc" .Release.Namespace -}}
{{- if ne (int .Values.channel.service.port) 443 }}{{ $service = printf "%s:%d" $service (int .Values.channel.service.port) }}{{ end -}}
{{- join "," (prepend .Values.channel.externalEndpoints $service) -}}
{{- end }}

{{- define "dsv.tlsSecret" -}}
{{- if .Values.channel.tls.certManager.enabled }}{{ default "dsv-operator-channel-tls" .Values.channel.tls.secretName }}{{ else }}{{ .Values.channel.tls.secretName }}{{ end -}}
{{- end }}

{{/* What Pod Security `restricted` asks of a pod and of a container. */}}
{{- define "dsv.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "dsv.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
