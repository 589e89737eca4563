// Package build is the façade: it wires frontends, solver, worker and outputs into
// the verbs that commands call. It renders nothing and reads no environment.
package build

import (
	"context"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/runtimes"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// Request is what to build and where it goes.
type Request struct {
	File        string              // -f; the spec, or the Dockerfile
	ContextDir  string              // the positional argument; with a Dockerfile a URL or "", too
	Dockerfile  *Dockerfile         // not nil: File is a Dockerfile
	Locked      bool                // only images that the lock file beside File has
	LLB         io.Reader           // not nil: a definition, instead of a file
	Platforms   []platform.Platform // none: the spec's, or this machine
	Args        map[string]string   // --build-arg
	Contexts    map[string]string   // --build-context NAME=DIR; with a Dockerfile what buildx takes, and references
	Tags        []ref.Ref           // -t
	Outputs     []output.Spec       // none: the store
	Stage       string              // --stage: pushes go under the tags of this stage (package stage), not under Tags
	Tagging     Tagging             // what becomes of other platforms that tags have
	Secrets     map[string]SecretSource
	Epoch       *int64            // SOURCE_DATE_EPOCH, seconds
	Labels      map[string]string // --label
	Annotations map[string]string // --annotation, of the index and its manifests
	Annotate    []Annotation      // --annotation TARGET:KEY=VALUE
	Allow       []verify.Allow    // --allow: contents that may be of another platform, beside the spec's

	renew bool // names mean what they mean now: Lock
}

// Dockerfile is what only builds of Dockerfiles and definitions have. The zero value is a Dockerfile in its context.
type Dockerfile struct {
	Archive       string            // a tar called "context" that is the context, instead of ContextDir
	Local         bool              // File is on this machine although the context is not
	Stdin         bool              // File was standard input: nothing belongs beside it
	Target        string            // --target
	NoCacheFilter []string          // --no-cache-filter
	Hosts         []string          // --add-host, NAME=IP
	ShmSize       int64             // --shm-size
	Ulimits       []string          // --ulimit
	Network       string            // --network
	Proxy         map[string]string // the caller's proxies, by the upper case names of their variables
	Allow         Entitlements
	SSH           map[string][]string // --ssh: sockets or keys by id
}

// Entitlements is what steps may ask for beyond a sandbox: --allow.
type Entitlements = llb.Allow

// Annotation is one that is meant for a part of the result.
type Annotation struct {
	Target     string            // index, manifest, or manifest-descriptor: the index's entry
	Platform   platform.Platform // of manifests; zero is all
	Key, Value string
}

// SecretSource says where a secret's bytes are.
type SecretSource struct {
	File string // path
	Env  string // name of a variable
}

// Options tunes a build. The zero value is the recommended one.
type Options struct {
	Parallel    int // steps at once over all platforms; 0 means NumCPU
	NoCache     bool
	KeepGoing   bool // go on with other platforms after one failed
	Verify      VerifyMode
	Pull        bool // ask the registry again for tags that are known
	Registry    registry.Options
	Emulators   map[string]string // architecture → path
	Emulation   emulate.Mode      // "" takes the first rung that works
	DeviceDirs  []string          // of CDI files; nil: cdi.DefaultDirs
	EmulatorDir string            // where installed emulators are; "" is nowhere
	Path        string            // $PATH: where emulators and newuidmap are looked for
	SandboxMode sandbox.Mode      // "" probes
	// OverwriteRoot lets steps in place run where nothing tells that this is a container.
	OverwriteRoot bool
	Limits        Resources           // of every step
	LogLimit      int64               // bytes of a step's output that are shown; 0: all
	Authorities   []byte              // certificates in PEM that programs of steps trust beside their image's
	Accelerate    []string            // packages with native programs for emulated steps, or accel.Host
	OnError       func(FailedStep)    // called for a step that failed, while what it left is there
	Environ       func(string) string // for secrets from variables; nil has none
	Dir           string              // relative paths of outputs start here; "" is the working directory
	Stdout        io.Writer           // outputs with dest "-"
	Events        event.Sink
	Load          runtimes.Runtime   // not nil: the result goes into it, and to the store only if Request.Outputs says so
	CacheFrom     []remotecache.Spec // where records are looked for beside the store
	CacheTo       []remotecache.Spec // where they are written to
	Clock         func() time.Time   // for CacheTo in a registry, and Request.Stage
	Builder       builder.Builder    // whose nodes solve; without BuildKit nodes this machine does
	Fallback      bool               // platforms that no node builds, or none any more, are built on this machine
	Now           func() time.Time   // when layers of Dockerfiles were made; nil: they have no time
	PackedFrom    int64              // bytes from which layers that nothing reads are kept compressed only; 0: 128 MiB
}

// Result is what was built.
type Result struct {
	Root   ocispec.Descriptor // the index, or the manifest of a build for one platform
	Raw    []byte             // Root's bytes
	Images []image.Image
	Names  []ref.Ref
}

// AgentMain must be the first call of main and TestMain: it does not return when
// this process was started as a sandbox's agent.
func AgentMain() { sandbox.Main() }

// SpecCheck reads and checks a spec like Run does, builds nothing and returns its warnings.
func SpecCheck(ctx context.Context, req Request) (warnings []string, err error) {
	b, err := spec.Load(ctx, req.File, req.ContextDir, specOptions(req))
	if err != nil {
		return nil, err
	}
	return b.Warnings, nil
}

// SpecSchema is the JSON Schema of a spec.
func SpecSchema() []byte { return spec.Schema() }
