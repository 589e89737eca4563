// Package deploy holds tests of the files in deploy: kustomize is run over them, and what it writes is read strictly as
// Kubernetes' own types. No cluster and no network is needed. They have modules of their own (tools/kubernetes.mod), which
// users of this module never see.
package deploy
