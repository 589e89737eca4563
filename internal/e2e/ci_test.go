package e2e

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
)

// pipeline is what the templates in ci/ are run in: a registry with users and TLS, and a project.
type pipeline struct {
	w       who
	addr    string
	project string
	base    []string // environment of every job
}

func newPipeline(t *testing.T) *pipeline {
	t.Helper()
	w := root(t)
	if os.Getuid() != 0 {
		w = who{name: "self", home: t.TempDir()}
	}
	p := &pipeline{w: w, project: w.dir(t, "project")}
	p.addr = startServe(t, w, append(secured(t, w), filepath.Join(w.home, "registry"))...).addr
	require.NoError(t, os.WriteFile(filepath.Join(p.project, "rootfs.yaml"), []byte(`version: 1
args: {V: "1"}
from: scratch
steps:
  - files: [{path: /a, content: "${TARGETARCH} ${V}", expand: true}]
`), 0o644))
	p.base = []string{"SSL_CERT_FILE=" + filepath.Join(w.home, "certs", "ca.crt"), "PATH=" + filepath.Dir(shared.bin) + ":" + os.Getenv("PATH")}
	return p
}

// dockerConfig is a directory with the config.json that a login leaves.
func (p *pipeline) dockerConfig(t *testing.T) string {
	t.Helper()
	dir := p.w.dir(t, "dockerconfig")
	auth := base64.StdEncoding.EncodeToString([]byte(testUser + ":" + testPassword))
	raw, err := json.Marshal(map[string]any{"auths": map[string]any{p.addr: map[string]string{"auth": auth}}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600))
	return dir
}

// shell runs a script as a job does, with a store and a home of its own: nothing passes between jobs.
func (p *pipeline) shell(t *testing.T, job string, env map[string]string, shell ...string) result {
	t.Helper()
	c := exec.Command(shell[0], shell[1:]...)
	home := p.w.dir(t, "home-"+job)
	c.Dir = p.project
	c.Env = append([]string{"HOME=" + home, "TMPDIR=" + home}, p.base...)
	for _, k := range slices.Sorted(maps.Keys(env)) {
		c.Env = append(c.Env, k+"="+env[k])
	}
	return do(t, c)
}

// platformsAt are those of the index that a name has.
func (p *pipeline) platformsAt(t *testing.T, name string) []string {
	t.Helper()
	var idx struct {
		Manifests []struct {
			Platform struct{ OS, Architecture string }
		}
	}
	c := p.w.command(append([]string{"DOCKER_CONFIG=" + p.dockerConfig(t)}, p.base...), "inspect", "--raw", name)
	require.NoError(t, json.Unmarshal([]byte(ok(t, c).stdout), &idx))
	var out []string
	for _, m := range idx.Manifests {
		out = append(out, m.Platform.OS+"/"+m.Platform.Architecture)
	}
	return out
}

func readYAML(t *testing.T, name string, into ...any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "ci", name))
	require.NoError(t, err)
	d := yaml.NewDecoder(strings.NewReader(string(raw)))
	for _, v := range into {
		require.NoError(t, d.Decode(v), name)
	}
}

// TestCI_gitlab runs the scripts of GitLab's jobs with the variables of GitLab.
func TestCI_gitlab(t *testing.T) {
	p := newPipeline(t)
	var jobs map[string]struct {
		Extends      string
		Variables    map[string]string
		BeforeScript []string `yaml:"before_script"`
		Script       []string
	}
	readYAML(t, "gitlab/manifestctl.gitlab-ci.yml", &jobs)
	ci := map[string]string{
		"CI": "true", "GITLAB_CI": "true", "CI_REGISTRY": p.addr, "CI_REGISTRY_USER": testUser, "CI_REGISTRY_PASSWORD": testPassword,
		"CI_REGISTRY_IMAGE": p.addr + "/group/app", "CI_COMMIT_REF_SLUG": "main", "CI_PIPELINE_ID": "4711", "CI_PROJECT_DIR": p.project,
	}
	run := func(name, id string, set map[string]string) result {
		job := jobs[name]
		env := maps.Clone(ci)
		for _, vars := range []map[string]string{jobs[job.Extends].Variables, job.Variables, set} { // the last one wins, as in GitLab
			maps.Copy(env, vars)
		}
		for k, v := range env {
			env[k] = os.Expand(v, func(n string) string { return env[n] })
		}
		env["MANIFESTCTL_ROOT"] = filepath.Join(p.w.home, "store-"+id)
		lines := append(slices.Clone(jobs[job.Extends].BeforeScript), job.Script...)
		return p.shell(t, id, env, "sh", "-e", "-c", strings.Join(lines, "\n"))
	}
	cache := map[string]string{"MANIFESTCTL_CACHE": p.addr + "/group/app/cache", "MANIFESTCTL_ARGS": "--build-arg V=2 --label a=b"}
	build := func(platform, id string) result {
		set := maps.Clone(cache)
		set["PLATFORM"] = platform
		return run(".manifestctl-build", id, set)
	}
	r := build("linux/amd64", "one")
	require.Zero(t, r.code, r.stderr)
	r = run(".manifestctl-merge", "early", nil)
	require.Equal(t, 6, r.code, r.stderr)
	r = build("linux/arm64", "two")
	require.Zero(t, r.code, r.stderr)
	r = run(".manifestctl-merge", "merge", map[string]string{"MANIFESTCTL_TAGS": "$CI_REGISTRY_IMAGE:main $CI_REGISTRY_IMAGE:latest"})
	require.Zero(t, r.code, r.stderr)
	assert.Equal(t, []string{"linux/amd64", "linux/arm64"}, p.platformsAt(t, p.addr+"/group/app:latest"))
	env, err := os.ReadFile(filepath.Join(p.project, "manifestctl.env"))
	require.NoError(t, err)
	assert.Regexp(t, `^MANIFESTCTL_DIGEST=sha256:[0-9a-f]{64}\n$`, string(env))
	assert.FileExists(t, filepath.Join(p.project, "manifestctl.json"))
	r = run(".manifestctl-clean", "clean", map[string]string{"MANIFESTCTL_OLDER": "1ns"})
	require.Zero(t, r.code, r.stderr)
	assert.Equal(t, 2, strings.Count(r.stdout, "_stage.4711."), r.stdout)
	assert.Len(t, p.platformsAt(t, p.addr+"/group/app:main"), 2)
	// A wrong password ends the job before it builds.
	r = run(".manifestctl-build", "wrong", map[string]string{"CI_REGISTRY_PASSWORD": "wrong"})
	assert.NotZero(t, r.code)
}

// TestCI_image builds the image of the templates' jobs, on a base that a test has, and runs it.
func TestCI_image(t *testing.T) {
	registry := testregistry.Debian(t)
	w := root(t)
	if os.Getuid() != 0 {
		w = who{name: "self", home: t.TempDir()}
	}
	box, err := os.ReadFile(tool(t, "busybox"))
	require.NoError(t, err)
	under := w.dir(t, "base")
	require.NoError(t, os.WriteFile(filepath.Join(under, "busybox"), box, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(under, "rootfs.yaml"), []byte(`version: 1
from: scratch
steps:
  - files:
      - {path: /bin/sh, source: busybox, mode: "0755"}
      - {path: /tmp, type: directory, mode: "1777"}
config: {env: {PATH: "/usr/bin:/bin"}}
`), 0o644))
	base := registry + "/base:1"
	ok(t, w.command(nil, "build", "-q", "--platform", "linux/"+runtime.GOARCH, "-t", base, "--push", under))
	dir := w.copyTree(t, filepath.Join("..", "..", "ci", "image"), "image")
	program, err := os.ReadFile(shared.bin)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "manifestctl-"+runtime.GOARCH), program, 0o755))
	ok(t, w.command(nil, "build", "-q", "--platform", "linux/"+runtime.GOARCH, "--build-arg", "BASE="+base, "-t", "tools:1", dir))
	assert.Contains(t, ok(t, w.command(nil, "run", "store:tools:1", "/bin/sh", "-c", "manifestctl version")).stdout, "manifestctl")
}

// action is an action.yml.
type action struct {
	Inputs map[string]struct {
		Default  string
		Required bool
	}
	Outputs map[string]struct{ Value string }
	Runs    struct {
		Using string
		Steps []struct {
			ID, Run, Shell string
			Env            map[string]string
		}
	}
}

var expression = regexp.MustCompile(`\$\{\{ *([a-z.-]+) *\}\}`)

// github runs the steps of an action as GitHub's runner does, and returns its outputs and what was printed.
func (p *pipeline) github(t *testing.T, name, id string, with map[string]string) (outputs map[string]string, last result) {
	t.Helper()
	var a action
	readYAML(t, filepath.Join("github", name, "action.yml"), &a)
	require.Equal(t, "composite", a.Runs.Using)
	for k := range with {
		require.Contains(t, a.Inputs, k)
	}
	dir := p.w.dir(t, "github-"+id)
	at, err := filepath.Abs(filepath.Join("..", "..", "ci", "github", name))
	require.NoError(t, err)
	outputs = map[string]string{}
	steps := map[string]map[string]string{}
	eval := func(s string) string {
		return expression.ReplaceAllStringFunc(s, func(e string) string {
			switch name := expression.FindStringSubmatch(e)[1]; {
			case strings.HasPrefix(name, "inputs."):
				k := strings.TrimPrefix(name, "inputs.")
				require.Contains(t, a.Inputs, k)
				if v, ok := with[k]; ok {
					return v
				}
				return strings.ReplaceAll(strings.ReplaceAll(a.Inputs[k].Default, "${{ github.token }}", "token-of-the-job"), "${{ github.run_id }}", "99")
			case strings.HasPrefix(name, "steps."):
				parts := strings.Split(name, ".")
				return steps[parts[1]][parts[3]]
			}
			t.Fatalf("what is %s", e)
			return ""
		})
	}
	path := ""
	for i, s := range a.Runs.Steps {
		require.Equal(t, "bash", s.Shell)
		out := filepath.Join(dir, "output")
		require.NoError(t, os.WriteFile(out, nil, 0o600))
		env := map[string]string{
			"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_ACTION_PATH": at, "GITHUB_OUTPUT": out, "GITHUB_PATH": filepath.Join(dir, "path"),
			"GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary.md"), "RUNNER_TEMP": dir, "DOCKER_CONFIG": p.dockerConfig(t), "GITHUB_RUN_ID": "99",
		}
		if path != "" {
			env["PATH"] = path
		}
		for k, v := range s.Env {
			env[k] = eval(v)
		}
		last = p.shell(t, id, env, "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", s.Run)
		if last.code != 0 {
			return outputs, last
		}
		raw, err := os.ReadFile(out)
		require.NoError(t, err)
		steps[s.ID] = githubOutputs(t, string(raw))
		_ = i
	}
	for k, v := range a.Outputs {
		outputs[k] = eval(v.Value)
	}
	return outputs, last
}

// githubOutputs reads what a step has written to $GITHUB_OUTPUT.
func githubOutputs(t *testing.T, text string) map[string]string {
	t.Helper()
	out := map[string]string{}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		if lines[i] == "" {
			continue
		}
		if k, end, ok := strings.Cut(lines[i], "<<"); ok && !strings.Contains(k, "=") {
			n := slices.Index(lines[i+1:], end)
			require.GreaterOrEqual(t, n, 0, "no end of %s", k)
			out[k] = strings.Join(lines[i+1:i+1+n], "\n")
			i += n + 1
			continue
		}
		k, v, ok := strings.Cut(lines[i], "=")
		require.True(t, ok, lines[i])
		out[k] = v
	}
	return out
}

// buildPushAction are the inputs of docker/build-push-action v6.
const buildPushAction = `add-hosts allow annotations attests build-args build-contexts builder cache-from cache-to call cgroup-parent context file labels load
	network no-cache no-cache-filters outputs platforms provenance pull push sbom secrets secret-envs secret-files shm-size ssh tags target ulimit github-token`

// TestCI_github runs the steps of the actions with the variables of GitHub.
func TestCI_github(t *testing.T) {
	p := newPipeline(t)
	var a action
	readYAML(t, "github/action.yml", &a)
	for name := range strings.FieldsSeq(buildPushAction) {
		assert.Contains(t, a.Inputs, name)
	}
	for _, name := range []string{"digest", "imageid", "metadata"} {
		assert.Contains(t, a.Outputs, name)
	}
	app := p.addr + "/owner/app"
	out, r := p.github(t, "", "plain", map[string]string{
		"platforms": "linux/amd64,linux/arm64", "push": "true", "tags": "\n# names\n" + app + ":1, " + app + ":latest\n",
		"build-args": "V=a b\n", "labels": "org.opencontainers.image.title=My App\norg.opencontainers.image.description=a, b",
	})
	require.Zero(t, r.code, r.stderr+r.stdout)
	assert.Regexp(t, `^sha256:[0-9a-f]{64}$`, out["digest"])
	assert.Equal(t, out["digest"], out["imageid"])
	var meta map[string]any
	require.NoError(t, json.Unmarshal([]byte(out["metadata"]), &meta))
	assert.Equal(t, out["digest"], meta["containerimage.digest"])
	assert.Equal(t, []string{"linux/amd64", "linux/arm64"}, p.platformsAt(t, app+":latest"))
	summary, err := os.ReadFile(filepath.Join(p.w.home, "github-plain", "summary.md"))
	require.NoError(t, err)
	assert.Contains(t, string(summary), "| linux/arm64 | ")
	config := ok(t, p.w.command(append([]string{"DOCKER_CONFIG=" + p.dockerConfig(t)}, p.base...), "inspect", "--format", "{{json .Image}}", app+":1")).stdout
	assert.Contains(t, config, "a, b")

	// A platform each, and one index; nothing passes but the run's ID.
	for i, platform := range []string{"linux/arm64", "linux/s390x"} {
		_, r = p.github(t, "", "job"+string(rune('a'+i)), map[string]string{"platforms": platform, "push": "true", "tags": app + ":2", "stage": "99"})
		require.Zero(t, r.code, r.stderr+r.stdout)
	}
	_, r = p.github(t, "merge", "early", map[string]string{"expect": "linux/arm64,linux/s390x,linux/riscv64", "tags": app + ":2"})
	require.Equal(t, 6, r.code, r.stderr)
	out, r = p.github(t, "merge", "merge", map[string]string{"expect": "linux/arm64\nlinux/s390x,linux/riscv64?\n", "tags": app + ":2", "annotations": "k=v w", "clean": "true"})
	require.Zero(t, r.code, r.stderr)
	assert.Regexp(t, `^sha256:`, out["digest"])
	assert.Equal(t, []string{"linux/arm64", "linux/s390x"}, p.platformsAt(t, app+":2"))
	assert.Contains(t, r.stdout, "_stage.99.linux-s390x", "cleaned")

	// The guard on tags, inputs that are none, and a Dockerfile's check, which decides by exit codes.
	_, r = p.github(t, "", "drop", map[string]string{"platforms": "linux/amd64", "push": "true", "tags": app + ":2"})
	assert.Equal(t, 5, r.code, r.stderr)
	_, r = p.github(t, "", "bad", map[string]string{"push": "yes", "tags": app + ":3"})
	assert.Equal(t, 2, r.code)
	assert.Contains(t, r.stdout, "::error::INPUT_PUSH is yes")

	// Secrets are in no command line, and have what the step mounts.
	require.NoError(t, os.WriteFile(filepath.Join(p.project, "Dockerfile"), []byte("FROM scratch\nCOPY rootfs.yaml /\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(p.project, "token"), []byte("x"), 0o600))
	calls := filepath.Join(p.w.home, "calls")
	spy := p.w.dir(t, "spy")
	require.NoError(t, os.WriteFile(filepath.Join(spy, "manifestctl"), []byte("#!/bin/sh\n[ \"$1\" = version ] || { printf '%s\\n' \"$@\"; env | grep ^MANIFESTCTL_SECRET; } >"+calls+"\nexec "+shared.bin+" \"$@\"\n"), 0o755))
	p.base = append(p.base, "PATH="+spy+":"+os.Getenv("PATH"), "NPM=y")
	_, r = p.github(t, "", "secrets", map[string]string{
		"file": "Dockerfile", "secrets": "password=hunter=2", "secret-envs": "npm=NPM", "secret-files": "token=token", "outputs": "type=oci,dest=out.tar", "tags": "app:1",
	})
	require.Zero(t, r.code, r.stderr+r.stdout)
	said, err := os.ReadFile(calls)
	require.NoError(t, err)
	assert.Contains(t, string(said), "--secret=id=password,env=MANIFESTCTL_SECRET_1\n--secret=id=npm,env=NPM\n--secret=id=token,src=token\n")
	assert.Contains(t, string(said), "MANIFESTCTL_SECRET_1=hunter=2\n")
	assert.NotContains(t, strings.Split(string(said), "MANIFESTCTL_SECRET_1=")[0], "hunter")
}

// TestCI_githubSetup: without a manifestctl the action builds its own.
func TestCI_githubSetup(t *testing.T) {
	p := newPipeline(t)
	goTool := tool(t, "go")
	dir := p.w.dir(t, "tools")
	out := filepath.Join(p.w.home, "path")
	at, err := filepath.Abs(filepath.Join("..", "..", "ci", "github", "setup.sh"))
	require.NoError(t, err)
	env := map[string]string{"GITHUB_PATH": out, "RUNNER_TEMP": p.w.home, "PATH": dir + ":/usr/bin:/bin"}
	r := p.shell(t, "none", env, "bash", at)
	if _, err := os.Stat("/usr/bin/go"); err != nil {
		assert.Equal(t, 1, r.code)
		assert.Contains(t, r.stdout, "::error::")
	}
	env["PATH"] = filepath.Dir(goTool) + ":" + env["PATH"]
	for _, k := range []string{"GOPATH", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY"} {
		v, err := exec.Command(goTool, "env", k).Output()
		require.NoError(t, err)
		env[k] = strings.TrimSpace(string(v))
	}
	r = p.shell(t, "go", env, "bash", at)
	require.Zero(t, r.code, r.stderr)
	bin, err := os.ReadFile(out)
	require.NoError(t, err)
	assert.FileExists(t, filepath.Join(strings.TrimSpace(string(bin)), "manifestctl"))
}

// tektonTask is what the test needs to know of a Task.
type tektonTask struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Params []struct {
			Name    string
			Default any
		}
		Results []struct{ Name string }
		Steps   []struct {
			Env    []struct{ Name, Value string }
			Args   []string
			Script string
		}
	}
}

// TestCI_tekton runs the scripts of the tasks with Tekton's substitutions.
func TestCI_tekton(t *testing.T) {
	p := newPipeline(t)
	var build, merge tektonTask
	readYAML(t, "tekton/manifestctl.yaml", &build, &merge)
	config := p.dockerConfig(t)
	run := func(task tektonTask, id string, params map[string]string, arrays map[string][]string) (result, map[string]string) {
		require.Len(t, task.Spec.Steps, 1)
		step := task.Spec.Steps[0]
		set := map[string]string{"workspaces.dockerconfig.path": config, "workspaces.dockerconfig.bound": "true", "workspaces.source.path": p.project}
		for _, q := range task.Spec.Params {
			if text, ok := q.Default.(string); ok {
				set["params."+q.Name] = text
			}
			if v, ok := params[q.Name]; ok {
				set["params."+q.Name] = v
			}
		}
		dir := p.w.dir(t, "results-"+id)
		for _, q := range task.Spec.Results {
			set["results."+q.Name+".path"] = filepath.Join(dir, q.Name)
		}
		env := map[string]string{}
		for _, e := range step.Env {
			v := e.Value
			for k, to := range set {
				v = strings.ReplaceAll(v, "$("+k+")", to)
			}
			require.NotContains(t, v, "$(", e.Name)
			env[e.Name] = v
		}
		env["HOME"] = p.w.dir(t, "tekton-"+id)
		require.NotContains(t, step.Script, "$(params", "what people give is no part of a script")
		file := filepath.Join(dir, "script")
		require.NoError(t, os.WriteFile(file, []byte(step.Script), 0o755))
		words := []string{"sh", file}
		for _, w := range step.Args {
			if name, ok := strings.CutPrefix(w, "$(params."); ok {
				words = append(words, arrays[strings.TrimSuffix(name, "[*])")]...)
			} else {
				words = append(words, w)
			}
		}
		r := p.shell(t, id, env, words...)
		results := map[string]string{}
		for _, q := range task.Spec.Results {
			raw, _ := os.ReadFile(filepath.Join(dir, q.Name))
			results[q.Name] = string(raw)
		}
		return r, results
	}
	tags := []string{p.addr + "/team/app:1", p.addr + "/team/app:latest"}
	for _, platform := range []string{"linux/amd64", "linux/riscv64"} {
		r, got := run(build, strings.ReplaceAll(platform, "/", "-"), map[string]string{"platform": platform, "stage": "0b8a-1"}, map[string][]string{"tags": tags, "args": {"--label", "a=b c"}})
		require.Zero(t, r.code, r.stderr)
		assert.Regexp(t, `^sha256:[0-9a-f]{64}$`, got["IMAGE_DIGEST"])
		assert.Equal(t, tags[0], got["IMAGE_URL"])
	}
	r, got := run(merge, "merge", map[string]string{"stage": "0b8a-1", "expect": "linux/amd64,linux/riscv64"}, map[string][]string{"tags": tags})
	require.Zero(t, r.code, r.stderr)
	assert.Regexp(t, `^sha256:[0-9a-f]{64}$`, got["IMAGE_DIGEST"])
	assert.Equal(t, []string{"linux/amd64", "linux/riscv64"}, p.platformsAt(t, tags[1]))
	r, got = run(merge, "missing", map[string]string{"stage": "0b8a-1", "expect": "linux/arm64"}, map[string][]string{"tags": tags})
	assert.Equal(t, 6, r.code)
	assert.Empty(t, got["IMAGE_DIGEST"])
	// Without a stage it is one push.
	r, got = run(build, "push", map[string]string{"platform": "linux/amd64,linux/arm64"}, map[string][]string{"tags": {p.addr + "/team/other:1"}})
	require.Zero(t, r.code, r.stderr)
	assert.Len(t, p.platformsAt(t, p.addr+"/team/other@"+got["IMAGE_DIGEST"]), 2)
}
