//go:build ignore

// It is run by its name, with modules of its own: make kubernetes.

package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const deploy = "../../deploy/kubernetes"

// objects is what a directory becomes, by kind and name.
type objects struct {
	sets     map[string]*appsv1.StatefulSet
	services map[string]*corev1.Service
	jobs     map[string]*batchv1.Job
	maps     map[string]*corev1.ConfigMap
}

// build runs kustomize and reads its output: an unknown field, a wrong type or an unknown kind fails the test.
func build(t *testing.T, dir string) objects {
	t.Helper()
	res, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(deploy, dir))
	if err != nil {
		t.Fatalf("kustomize build %s: %v", dir, err)
	}
	out := objects{map[string]*appsv1.StatefulSet{}, map[string]*corev1.Service{}, map[string]*batchv1.Job{}, map[string]*corev1.ConfigMap{}}
	for _, r := range res.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		read := func(into any) {
			if err := yaml.UnmarshalStrict(text, into); err != nil {
				t.Errorf("%s: %s %s: %v", dir, r.GetKind(), r.GetName(), err)
			}
		}
		switch r.GetApiVersion() + " " + r.GetKind() {
		case "apps/v1 StatefulSet":
			out.sets[r.GetName()] = new(appsv1.StatefulSet)
			read(out.sets[r.GetName()])
		case "v1 Service":
			out.services[r.GetName()] = new(corev1.Service)
			read(out.services[r.GetName()])
		case "batch/v1 Job":
			out.jobs[r.GetName()] = new(batchv1.Job)
			read(out.jobs[r.GetName()])
		case "v1 ConfigMap":
			out.maps[r.GetName()] = new(corev1.ConfigMap)
			read(out.maps[r.GetName()])
		default:
			t.Errorf("%s: %s %s is nothing that this test knows", dir, r.GetApiVersion(), r.GetKind())
		}
	}
	return out
}

func TestDaemons(t *testing.T) {
	out := build(t, ".")
	if len(out.sets) != 2 || len(out.services) != 2 {
		t.Fatalf("%d sets and %d services, not 2 and 2", len(out.sets), len(out.services))
	}
	for _, arch := range []string{"amd64", "arm64"} {
		set, service := out.sets["buildkit-"+arch], out.services["buildkit-"+arch]
		if set == nil || service == nil {
			t.Fatalf("there is no buildkit-%s", arch)
		}
		pod := set.Spec.Template
		if set.Spec.ServiceName != service.Name {
			t.Errorf("%s: its service is %q, not %q", set.Name, set.Spec.ServiceName, service.Name)
		}
		if service.Spec.ClusterIP != corev1.ClusterIPNone {
			t.Errorf("%s is not headless", service.Name)
		}
		for key, want := range service.Spec.Selector {
			if pod.Labels[key] != want || set.Spec.Selector.MatchLabels[key] != want {
				t.Errorf("%s: the service selects %s=%s, the pod has %q", set.Name, key, want, pod.Labels[key])
			}
		}
		if service.Spec.Selector["app.kubernetes.io/instance"] != arch {
			t.Errorf("%s selects the pods of all architectures", service.Name)
		}
		if got := pod.Spec.NodeSelector["kubernetes.io/arch"]; got != arch {
			t.Errorf("%s runs on %q", set.Name, got)
		}
		c := pod.Spec.Containers[0]
		if service.Spec.Ports[0].TargetPort.String() != c.Ports[0].Name {
			t.Errorf("%s leads to port %s, the container has %s", service.Name, service.Spec.Ports[0].TargetPort.String(), c.Ports[0].Name)
		}
		mounts(t, set.Name, c, pod.Spec.Volumes, set.Spec.VolumeClaimTemplates)
		ordinary(t, set.Name, pod.Spec)
		for _, flag := range []string{"--tlscacert=", "--tlscert=", "--tlskey="} {
			if !strings.Contains(strings.Join(c.Args, " "), flag) {
				t.Errorf("%s: no %s: everybody may use it", set.Name, flag)
			}
		}
		if !strings.HasSuffix(c.Image, "-rootless") {
			t.Errorf("%s: image %s", set.Name, c.Image)
		}
	}
}

// TestOverlay: what the example changes is changed, in both sets, and nothing is lost.
func TestOverlay(t *testing.T) {
	out, plain := build(t, "overlay"), build(t, ".")
	if len(out.sets) != 2 || len(out.services) != 2 || len(out.maps) != 1 {
		t.Fatalf("%d sets, %d services and %d config maps, not 2, 2 and 1", len(out.sets), len(out.services), len(out.maps))
	}
	for name, before := range plain.sets {
		set := out.sets[name]
		if set == nil {
			t.Fatalf("there is no %s", name)
		}
		if set.Namespace != "builds" || out.services[name].Namespace != "builds" {
			t.Errorf("%s is in %q, its service in %q", name, set.Namespace, out.services[name].Namespace)
		}
		pod := set.Spec.Template.Spec
		c := pod.Containers[0]
		mounts(t, name, c, pod.Volumes, set.Spec.VolumeClaimTemplates)
		ordinary(t, name, pod)
		_, tag, _ := strings.Cut(before.Spec.Template.Spec.Containers[0].Image, ":")
		if c.Image != "registry.example/mirror/moby/buildkit:"+tag {
			t.Errorf("%s: image %s", name, c.Image)
		}
		want := append(append([]string{}, before.Spec.Template.Spec.Containers[0].Args...), "--config=/etc/buildkit/buildkitd.toml")
		if strings.Join(c.Args, " ") != strings.Join(want, " ") {
			t.Errorf("%s: args %q", name, c.Args)
		}
		for _, v := range pod.Volumes {
			if v.Name == "config" && (v.ConfigMap == nil || out.maps[v.ConfigMap.Name] == nil || out.maps[v.ConfigMap.Name].Data["buildkitd.toml"] == "") {
				t.Errorf("%s mounts no buildkitd.toml: %v", name, v)
			}
		}
		if got := set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage().String(); got != "200Gi" {
			t.Errorf("%s: storage %s", name, got)
		}
		if pod.NodeSelector["kubernetes.io/arch"] != before.Spec.Template.Spec.NodeSelector["kubernetes.io/arch"] {
			t.Errorf("%s runs anywhere", name)
		}
	}
	if n := out.sets["buildkit-amd64"].Spec.Replicas; n == nil || *n != 2 {
		t.Error("buildkit-amd64 has not 2 replicas")
	}
	if len(out.sets["buildkit-arm64"].Spec.Template.Spec.Tolerations) != 1 || len(out.sets["buildkit-amd64"].Spec.Template.Spec.Tolerations) != 0 {
		t.Error("arm64 alone tolerates its machines")
	}
}

func TestJob(t *testing.T) {
	out := build(t, "job")
	job := out.jobs["example-build"]
	if job == nil || len(out.maps) != 1 {
		t.Fatal("there is no job, or not one context")
	}
	spec := job.Spec.Template.Spec
	c := spec.Containers[0]
	mounts(t, job.Name, c, spec.Volumes, nil)
	ordinary(t, job.Name, spec)
	// The restricted Pod Security Standard.
	s := c.SecurityContext
	if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil ||
		len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" || spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Error("the job's pod is not restricted")
	}
	found := false
	for _, v := range spec.Volumes {
		if v.ConfigMap != nil {
			_, found = out.maps[v.ConfigMap.Name]
		}
	}
	if !found {
		t.Error("the job does not mount the context that is generated")
	}
	for name, m := range out.maps {
		if m.Data["build.sh"] == "" || m.Data["Dockerfile"] == "" {
			t.Errorf("%s has no build.sh or Dockerfile", name)
		}
	}
	// What the script calls is what the daemons are called.
	daemons := build(t, ".")
	script, err := os.ReadFile(filepath.Join(deploy, "job", "build.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range daemons.sets {
		if !strings.Contains(string(script), "tcp://"+name+"-0."+name+":1234") {
			t.Errorf("build.sh does not use %s", name)
		}
	}
}

// mounts checks that what a container mounts is there.
func mounts(t *testing.T, name string, c corev1.Container, volumes []corev1.Volume, claims []corev1.PersistentVolumeClaim) {
	t.Helper()
	have := map[string]bool{}
	for _, v := range volumes {
		have[v.Name] = true
	}
	for _, v := range claims {
		have[v.Name] = true
	}
	for _, m := range c.VolumeMounts {
		if !have[m.Name] {
			t.Errorf("%s mounts %q, which is no volume", name, m.Name)
		}
		delete(have, m.Name)
	}
	for v := range have {
		t.Errorf("%s: volume %q is not mounted", name, v)
	}
}

// ordinary checks that a pod runs as an ordinary user without privileges.
func ordinary(t *testing.T, name string, spec corev1.PodSpec) {
	t.Helper()
	s := spec.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 {
		t.Errorf("%s may run as root", name)
	}
	for _, c := range spec.Containers {
		if c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged {
			t.Errorf("%s is privileged", name)
		}
	}
}

// TestScripts: the shell reads both scripts.
func TestScripts(t *testing.T) {
	for _, script := range []string{"certs.sh", "job/build.sh"} {
		if out, err := exec.Command("sh", "-n", filepath.Join(deploy, script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}
