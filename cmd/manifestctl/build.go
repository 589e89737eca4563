package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/internal/ui"
	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// buildFlags are the flags of build, spelled as buildx spells them.
type buildFlags struct {
	inputFlags
	dockerfile  dockerfileFlags
	reports     reportFlags
	caches      cacheFlags
	file        string
	tags        []string
	outputs     []string
	push        bool
	noCache     bool
	pull        bool
	locked      bool
	keepGoing   bool
	parallel    int
	secrets     []string
	labels      []string
	annotations []string
	host        hostFlags
	builder     string
	fallback    bool
	steps       stepFlags
	onError     string
	keepStorage string
	iidFile     string
	metadata    string
	progress    string
	quiet       bool
	verify      string
	allow       []string
	attest      []string
	provenance  string
	sbom        string
	stage       string
	tagging     taggingFlags
	load        string
}

func (b *buildFlags) add(f *pflag.FlagSet) {
	b.inputFlags.add(f)
	b.dockerfile.add(f)
	buildxFlags(f)
	b.reports.add(f)
	b.caches.add(f)
	f.StringVarP(&b.file, "file", "f", "", "`FILE` the spec or the Dockerfile (default: rootfs.yaml or Dockerfile in the context); - is a Dockerfile on standard input, and a URL one there")
	f.StringArrayVarP(&b.tags, "tag", "t", nil, "`NAME[:TAG]` name of the result; may be repeated")
	f.StringArrayVarP(&b.outputs, "output", "o", nil, "`SPEC` where the result goes, see above; may be repeated (default: the store)")
	f.BoolVar(&b.push, "push", false, "push the result under its tags; short for -o type=registry")
	b.tagging.add(f)
	f.StringVar(&b.load, "load", "", "`RUNTIME` load the result into docker, podman, containerd[:NAMESPACE], nerdctl or cri-o; without a value into the first of them that answers")
	f.Lookup("load").NoOptDefVal = "true"
	f.StringVar(&b.stage, "stage", "", "`ID` push each platform under a tag of this stage, for `merge --stage ID`, and not under -t's tags")
	f.BoolVar(&b.noCache, "no-cache", false, "run every step, and record the results")
	f.BoolVar(&b.pull, "pull", false, "ask registries again for tags that are known")
	f.BoolVar(&b.locked, "locked", false, "use only base images that manifestctl.lock has")
	f.BoolVar(&b.keepGoing, "keep-going", false, "finish the other platforms when a step of one fails")
	f.IntVar(&b.parallel, "parallel", 0, "`N` steps at most at once over all platforms (default: the number of processors)")
	f.StringArrayVar(&b.secrets, "secret", nil, "`id=NAME[,src=FILE|,env=VAR]` a secret for the steps that mount it; may be repeated")
	f.StringArrayVar(&b.labels, "label", nil, "`KEY=VALUE` set a label of the images; may be repeated")
	f.StringArrayVar(&b.annotations, "annotation", nil, "`[TARGET:]KEY=VALUE` set an annotation of the index and its manifests, or of index, manifest[PLATFORM] or manifest-descriptor[PLATFORM]; may be repeated")
	b.host.add(f)
	f.StringVar(&b.builder, "builder", "", "`NAME` whose nodes build (default $MANIFESTCTL_BUILDER, else $BUILDX_BUILDER, else the one of `builder use`)")
	f.BoolVar(&b.fallback, "fallback", false, "build platforms that no node of the builder builds, or none any more, on this machine")
	b.steps.addBuild(f)
	f.StringVar(&b.onError, "on-error", onErrorFail, "`WHAT` to do when a step fails: fail, or open a shell in what it left")
	f.StringVar(&b.keepStorage, "keep-storage", "", "`SIZE` keep the store below it by dropping the least recently used cache after the build; 0 for no limit (default: a tenth of the disk)")
	f.StringVar(&b.iidFile, "iidfile", "", "`FILE` write the image ID to it: the config's digest of a single image, the index's of several")
	f.StringVar(&b.metadata, "metadata-file", "", "`FILE` write what was built to it: JSON with buildx's keys")
	f.StringVar(&b.progress, "progress", "auto", "`MODE` how progress is shown: auto, plain, tty, quiet or rawjson (default $BUILDKIT_PROGRESS, else auto)")
	f.BoolVarP(&b.quiet, "quiet", "q", false, "show no progress, only warnings and the digest")
	f.StringVar(&b.verify, "verify", "error", "`MODE` what to do when contents are not of their platform: error, warn or off")
	f.StringArrayVar(&b.allow, "allow", nil, "`ENTITLEMENT|PATH-GLOB=PLATFORM|any` let steps have network.host, security.insecure or device[=NAME]; files that may be of this platform as well; may be repeated")
	f.StringArrayVar(&b.attest, "attest", nil, "`TYPE` attach an attestation: only type=TYPE,disabled=true so far")
	f.StringVar(&b.provenance, "provenance", "false", "`MODE` attach provenance: only false so far")
	f.StringVar(&b.sbom, "sbom", "false", "`MODE` attach an SBOM: only false so far")
}

func newBuild(e *env) *cobra.Command {
	var b buildFlags
	cmd := &cobra.Command{
		Use:     "build [flags] [CONTEXT]",
		Aliases: []string{"b"},
		Short:   "Build a spec or a Dockerfile for several platforms",
		Long: "build makes an image for every platform of a spec or of a Dockerfile, and an index of them, with sources from\n" +
			"CONTEXT (default \".\"). It prints the digest of the result. What it is made from is -f FILE, else the one of rootfs.yaml\n" +
			"and Dockerfile that is in the context: a name that ends in .yaml or .yml is a spec's. With a Dockerfile CONTEXT may be the\n" +
			"URL of a git repository or archive, or - for an archive or a Dockerfile on standard input.\n\n" + outputHelp(),
		Example: "  manifestctl build -t localhost:5000/hello:1.0 --push examples/hello\n" +
			"  manifestctl build --platform linux/arm64 -o type=oci,dest=hello.tar .\n" +
			"  manifestctl build --platform linux/amd64,linux/arm64 -f Dockerfile --target release -t app .",
		Args: positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			if err := refuseBuildx(cmd.Flags()); err != nil {
				return err
			}
			for _, path := range append([]string{b.iidFile, b.metadata}, b.reports.files()...) {
				if err := canWrite(path); err != nil {
					return err
				}
			}
			var req build.Request
			done, err := b.chooseInput(cmd.Context(), e, &req, dir)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			if err := b.request(e, &req); err != nil {
				return err
			}
			if _, err := parseSize("keep-storage", b.keepStorage); err != nil {
				return err
			}
			o, err := b.options(e)
			if err != nil {
				return err
			}
			if err := b.caches.options(e, &o); err != nil {
				return err
			}
			if o.Load, err = b.runtime(cmd.Context(), e); err != nil {
				return err
			}
			mode, err := b.progressMode(e)
			if err != nil {
				return err
			}
			mode, held, err := e.onError(cmd.Context(), b.onError, mode, &o)
			if err != nil {
				return err
			}
			display := ui.New(mode, e.stderr, ui.Options{
				Now: e.now, Size: e.size, Term: e.getenv("TERM"), NoColor: e.getenv("NO_COLOR") != "",
			})
			recorder := b.reports.recorder(e)
			o.Events = held.sink(tee(display.Sink(), recorder))
			o.Registry.Events = o.Events
			var res build.Result
			grown, answered := int64(0), false
			err = e.withStore(cmd.Context(), store.Options{}, func(st *store.Store) error {
				if answered, err = b.dockerfile.answer(cmd.Context(), e, st, req, o); answered || err != nil {
					return err
				}
				res, err = build.Run(cmd.Context(), st, req, o)
				grown = st.Grown()
				return err
			})
			if err == nil && grown > 0 {
				err = b.trim(cmd.Context(), e, grown, o)
			}
			display.Close()
			if answered {
				return err
			}
			if rerr := b.reports.write(recorder, req, res, err); rerr != nil {
				err = errors.Join(err, rerr)
			}
			if err != nil {
				return err
			}
			return b.report(e, req, res)
		},
	}
	b.add(cmd.Flags())
	return cmd
}

// trim keeps the store small after a build. That it could not is a warning: the build is done.
func (b *buildFlags) trim(ctx context.Context, e *env, grown int64, o build.Options) error {
	keep, err := parseSize("keep-storage", b.keepStorage)
	if err != nil {
		return err
	}
	if b.keepStorage == "" {
		root, err := e.storeRoot()
		if err != nil {
			return err
		}
		keep = store.DefaultKeepStorage(root)
	}
	err = e.withStore(ctx, store.Options{}, func(st *store.Store) error {
		r, err := build.Trim(ctx, st, keep, grown, o)
		if r.Bytes > 0 {
			o.Events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("the store was larger than %s: freed %s of its cache (--keep-storage)", bytesText(keep), bytesText(r.Bytes))})
		}
		return err
	})
	if err != nil {
		o.Events.Emit(event.Event{Kind: event.Warning, Text: "the store could not be made smaller: " + err.Error()})
	}
	return nil
}

// outputHelp says what -o takes, from the table that it is parsed with.
func outputHelp() string {
	var b strings.Builder
	b.WriteString("Outputs, as -o type=TYPE,KEY=VALUE,...:\n")
	keys := map[string]bool{}
	var lines []string
	for _, k := range output.Kinds() {
		names := make([]string, 0, len(k.Attributes))
		for _, a := range k.Attributes {
			names = append(names, a.Name)
			if !keys[a.Name] {
				keys[a.Name] = true
				lines = append(lines, fmt.Sprintf("  %-36s %s\n", a.Name+"="+a.Value, a.Help))
			}
		}
		fmt.Fprintf(&b, "  %-10s%s\n            keys: %s\n", k.Name, k.Help, strings.Join(names, ", "))
	}
	b.WriteString("Keys:\n" + strings.Join(lines, ""))
	b.WriteString("-o DIR is short for type=local,dest=DIR, and -o - for type=tar,dest=-.")
	return b.String()
}

// progressMode is --progress, -q, or the variable that BuildKit's users set.
func (b *buildFlags) progressMode(e *env) (ui.Mode, error) {
	if b.quiet {
		return ui.Quiet, nil
	}
	mode, err := ui.ParseMode(b.progress)
	if err != nil {
		return "", usagef("--progress: %w", err)
	}
	if mode != ui.Auto {
		return mode, nil
	}
	if mode, err = ui.ParseMode(e.getenv("BUILDKIT_PROGRESS")); err != nil {
		return "", usagef("BUILDKIT_PROGRESS: %w", err)
	}
	return mode, nil
}

// request is what to build, all of it parsed and checked.
func (b *buildFlags) request(e *env, req *build.Request) (err error) {
	if err := b.attestations(); err != nil {
		return err
	}
	if err := b.inputFlags.request(e, req); err != nil {
		return err
	}
	req.Locked = b.locked
	if req.Dockerfile != nil {
		if err := b.dockerfile.request(e, req.Dockerfile); err != nil {
			return err
		}
	}
	if req.Labels, err = keyValues("label", b.labels, nil); err != nil {
		return err
	}
	if req.Annotations, req.Annotate, err = parseAnnotations(b.annotations); err != nil {
		return err
	}
	if req.Secrets, err = parseSecrets(e, b.secrets); err != nil {
		return err
	}
	for _, t := range b.tags {
		tag, err := ref.ParseTag(t)
		if err != nil {
			return err
		}
		req.Tags = append(req.Tags, tag)
	}
	contents, entitlements := splitAllows(b.allow)
	if req.Allow, err = parseAllows(contents); err != nil {
		return err
	}
	if req.Dockerfile != nil {
		if err := entitle(&req.Dockerfile.Allow, entitlements); err != nil {
			return err
		}
	} else if len(entitlements) > 0 {
		return usagef("--allow %s is for Dockerfiles, and %q is a spec", entitlements[0], req.File)
	}
	req.Stage = b.stage
	if req.Tagging, err = b.tagging.parse(); err != nil {
		return err
	}
	req.Outputs, err = b.parseOutputs(len(req.Tags) > 0)
	return err
}

// attestations refuses what later versions attach.
func (b *buildFlags) attestations() error {
	for _, a := range b.attest {
		if a != "false" && !strings.HasSuffix(a, "disabled=true") {
			return usagef("--attest=%s is not supported yet", a).withHint("only type=...,disabled=true is")
		}
	}
	for flag, value := range map[string]string{"provenance": b.provenance, "sbom": b.sbom} {
		if value != "false" {
			return usagef("--%s=%s is not supported yet", flag, value).withHint("only --%s=false is", flag)
		}
	}
	return nil
}

// parseOutputs reads -o and --push.
func (b *buildFlags) parseOutputs(tagged bool) ([]output.Spec, error) {
	var out []output.Spec
	pushes := false
	for _, s := range b.outputs {
		spec, err := output.Parse(s)
		if err != nil {
			return nil, err
		}
		if b.push && spec.Type == "image" {
			spec.Push = true
		}
		pushes = pushes || spec.Push || spec.Type == "registry"
		out = append(out, spec)
	}
	if !b.push {
		return out, nil
	}
	if !pushes {
		spec, err := output.Parse("type=registry")
		if err != nil {
			return nil, err
		}
		out = append(out, spec)
	}
	for _, spec := range out {
		if (spec.Push || spec.Type == "registry") && len(spec.Names) == 0 && !tagged {
			return nil, usagef("--push needs a name to push to").withHint("give one with -t HOST/REPO:TAG")
		}
	}
	return out, nil
}

// options is how to build it.
func (b *buildFlags) options(e *env) (build.Options, error) {
	o, err := b.host.options(e)
	if err != nil {
		return o, err
	}
	if err := b.steps.options(e, &o); err != nil {
		return o, err
	}
	if b.parallel < 0 {
		return o, usagef("--parallel %d: want a positive number", b.parallel)
	}
	if o.Verify, err = verifyMode(b.verify); err != nil {
		return o, err
	}
	if o.Builder, err = e.builder(b.builder); err != nil {
		return o, err
	}
	o.Fallback = b.fallback
	o.Parallel, o.NoCache, o.KeepGoing, o.Pull = b.parallel, b.noCache, b.keepGoing, b.pull
	o.Registry, o.Environ, o.Stdout, o.Now = e.registry(), e.getenv, e.stdout, e.now
	o.Clock = e.now
	o.DeviceDirs = b.dockerfile.deviceDirs
	return o, nil
}
