package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/credentials"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/replica"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// syncFlags are what sync can be told.
type syncFlags struct {
	options  replica.Options
	suffix   string
	scoped   bool
	json     bool
	src, dst string
}

func newSync(e *env) *cobra.Command {
	var s syncFlags
	cmd := &cobra.Command{
		Use:   "sync [flags] FILE [DEST]",
		Short: "Keep repositories equal to others, as a file says",
		Long: "sync copies what FILE lists to DEST: HOST[/PREFIX], oci:DIR or store:. FILE (- is standard input) is skopeo's sync\n" +
			"file, or one of our own with lists, patterns and versions of tags, platforms and limits, which may name the\n" +
			"destination itself; docs/sync.md describes both. Referrers and signatures go along.\n\n" +
			"What is there already is neither read nor written, so that a run that finds nothing new costs a few requests a tag,\n" +
			"and one that was interrupted is made good by the next. A line for each image goes to stdout, or with --json a report.",
		Example: "  manifestctl sync mirror.yaml registry.internal/mirror\n" +
			"  manifestctl sync --dry-run --json mirror.yaml registry.internal/mirror\n" +
			"  manifestctl sync --keep-going --scoped skopeo.yml oci:carry",
		Args: positional(1, 2, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dest := ""
			if len(args) == 2 {
				dest = args[1]
			}
			return e.sync(cmd.Context(), args[0], dest, &s)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&s.options.DryRun, "dry-run", false, "change nothing, and say what would be done")
	f.BoolVar(&s.options.KeepGoing, "keep-going", false, "after a failure, do the rest; the exit code still tells")
	f.IntVarP(&s.options.Concurrency, "concurrency", "j", 0, "`N` transfers at once (default 32)")
	f.BoolVar(&s.scoped, "scoped", false, "keep the hosts and whole names of sources as a part of the repositories' names")
	f.StringVar(&s.suffix, "append-suffix", "", "`SUFFIX` of every tag at the destination")
	f.BoolVar(&s.json, "json", false, "print a report as JSON instead of a line for each image")
	f.BoolVarP(&e.globals.silent, "quiet", "q", false, "no progress and no summary")
	// skopeo's spellings.
	f.StringVarP(&s.src, "src", "s", "yaml", "skopeo's: yaml")
	f.StringVarP(&s.dst, "dest", "d", "docker", "skopeo's: docker")
	var ignored bool
	for _, name := range []string{"all", "preserve-digests"} { // what is done anyway
		f.BoolVar(&ignored, name, false, "")
	}
	f.Lookup("all").Shorthand = ""
	for _, name := range []string{"src", "dest", "all", "preserve-digests"} {
		f.Lookup(name).Hidden = true
	}
	return cmd
}

func (e *env) sync(ctx context.Context, file, dest string, s *syncFlags) error {
	switch {
	case s.src != "yaml":
		return usagef("--src %s", s.src).withHint("`manifestctl copy --all-tags SRC DST` copies one repository")
	case s.dst != "docker":
		return usagef("--dest %s", s.dst).withHint("DEST oci:DIR is a directory of OCI layouts")
	case s.options.Concurrency < 0 || s.options.Concurrency > 1000:
		return usagef("--concurrency %d: want 1 to 1000", s.options.Concurrency)
	}
	o := replica.ParseOptions{Suffix: s.suffix, Secret: e.secret}
	if dest != "" {
		to, err := transfer.ParsePlace(dest)
		if err != nil {
			return err
		}
		to.Scoped = s.scoped
		o.To = &to
	}
	raw, err := e.readInput(file)
	if err != nil {
		return err
	}
	plan, err := replica.Parse(raw, o)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if !s.json {
		s.options.Each = e.synced
	}
	writes := make([]ref.Ref, len(plan.Jobs))
	for i, j := range plan.Jobs {
		writes[i] = j.To
	}
	return e.withTransferAs(ctx, e.planned(plan), nil, writes, func(env transfer.Env) error {
		rep, err := replica.Run(ctx, env, plan, s.options)
		if s.json {
			err = errors.Join(err, e.printJSON(rep))
		}
		if !e.globals.silent {
			e.note("%d copied (%s), %d unchanged, %d failed; %s", rep.Copied, bytesText(rep.Bytes), rep.Unchanged, rep.Failed, count(int(rep.Requests), "request"))
		}
		return err
	})
}

// synced writes the line of one image.
func (e *env) synced(img replica.Image) {
	for _, n := range img.Notes {
		e.note("note: %s: %s", img.To, n)
	}
	if img.Status == replica.Failed { // the error says it, or with --keep-going all of them at the end
		return
	}
	_ = e.println(fmt.Sprintf("%-10s %s %s -> %s", img.Status, img.Digest, img.From, img.To)) // the summary says how many there were
}

// planned is what a plan says about registries, beside the flags.
func (e *env) planned(p replica.Plan) func(*registry.Options) {
	return func(o *registry.Options) {
		o.Pace = p.Limit(e.now)
		o.HostCerts = map[string]string{}
		keys := e.keychain()
		for _, host := range p.Hosts() {
			r := p.Registries[host]
			if r.Insecure {
				o.Insecure.Names = append(o.Insecure.Names, host)
			}
			if r.PlainHTTP {
				o.PlainHTTP.Names = append(o.PlainHTTP.Names, host)
			}
			if r.CertDir != "" {
				o.HostCerts[host] = r.CertDir
			}
			if r.Username != "" {
				keys.Given = append(keys.Given, credentials.Given{Host: host, User: r.Username, Pass: r.Password})
			}
		}
		o.Keychain = credentials.New(keys)
	}
}

// secret reads what a sync file names.
func (e *env) secret(kind replica.SecretKind, name string) (string, error) {
	if kind == replica.SecretEnv {
		v, ok := e.lookup(name)
		if !ok {
			return "", fmt.Errorf("the variable %s is not set", name)
		}
		return v, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err == nil && len(raw) > maxPassword {
		err = fmt.Errorf("%s has more than %d bytes", name, maxPassword)
	}
	return strings.TrimRight(string(raw), "\r\n"), err
}

// maxInput is the most that is read of a file that describes something, in bytes.
const maxInput = 16 << 20

// readInput reads a file, or standard input.
func (e *env) readInput(name string) (raw []byte, err error) {
	from := e.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usagef("%w", err)
		}
		defer f.Close()
		from = f
	}
	raw, err = io.ReadAll(io.LimitReader(from, maxInput+1))
	if err == nil && len(raw) > maxInput {
		err = usagef("%s has more than %d bytes", name, maxInput)
	}
	return raw, err
}
