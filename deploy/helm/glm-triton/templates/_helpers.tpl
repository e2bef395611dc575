{{- define "glm.labels" -}}
app.kubernetes.io/name: glm-triton
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "glm.allLabels" -}}
{{ include "glm.labels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "glm.hardened" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "glm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "glm.buildFolder" -}}
{{- if eq .Values.build.source "oci" -}}
/builds
{{- else -}}
/builds/{{ .Values.build.digest }}
{{- end -}}
{{- end }}

{{/* The volume that holds the build; an OCI image holds it at its root. `sizeLimit` is that of a copy. */}}
{{- define "glm.buildVolume" -}}
{{- $build := .root.Values.build -}}
- name: builds
{{- if eq $build.source "pvc" }}
  persistentVolumeClaim:
    claimName: {{ $build.pvc.claimName }}
    readOnly: true
{{- else if eq $build.source "oci" }}
  image:
    reference: "{{ required "build.oci.repository" $build.oci.repository }}@{{ required "build.oci.imageDigest" $build.oci.imageDigest }}"
    pullPolicy: IfNotPresent
{{- else }}
  emptyDir:
    sizeLimit: {{ .sizeLimit }}
{{- end }}
{{- end }}

{{/*
Copies the build where it lies elsewhere, and compares it with its manifest. `image` runs the comparison. `leftOut` is a
folder of the build that is neither copied nor compared, as the gateways need no models.
*/}}
{{- define "glm.buildInit" -}}
{{- $root := .root -}}
{{- $build := .root.Values.build -}}
{{- if eq $build.source "s3" }}
- name: copy-build
  image: {{ $build.s3.image }}
  args:
    - s3
    - sync
    - --only-show-errors
    {{- with .leftOut }}
    - --exclude={{ . }}/*
    {{- end }}
    - {{ required "build.s3.url" $build.s3.url }}/{{ $build.digest }}
    - {{ include "glm.buildFolder" $root }}
  env:
    - {name: HOME, value: /tmp}
  {{- with $build.s3.secretName }}
  envFrom:
    - secretRef:
        name: {{ . }}
  {{- end }}
  securityContext:
    {{- include "glm.hardened" . | nindent 4 }}
  volumeMounts:
    - {name: builds, mountPath: /builds}
    - {name: tmp, mountPath: /tmp}
  resources:
    requests: {cpu: "1", memory: 256Mi}
    limits: {memory: 1Gi}
{{- end }}
{{- if $build.verify }}
- name: verify-build
  image: {{ .image }}
  command: [python3, -c]
  args:
    - |
      import pathlib, sys
      from glmserve.build.manifest import Manifest
      folder, digest, *left_out = pathlib.Path(sys.argv[1]), *sys.argv[2:]
      manifest = Manifest.read(folder)
      manifest.check(folder, left_out)
      sys.exit(None if manifest.digest == digest else f"{folder} holds build {manifest.digest}, not {digest}.")
    - {{ include "glm.buildFolder" $root }}
    - {{ $build.digest | quote }}
    {{- with .leftOut }}
    - {{ . }}
    {{- end }}
  securityContext:
    {{- include "glm.hardened" . | nindent 4 }}
  volumeMounts:
    - {name: builds, mountPath: /builds, readOnly: true}
  resources:
    requests: {cpu: "1", memory: 128Mi}
    limits: {memory: 1Gi}
{{- end }}
{{- end }}
