package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/internal/ui"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// withTransfer makes what transfers between these references work with, for the time of f. The store is opened only when one of
// them is in it, and for writing only when one of writes is.
func (e *env) withTransfer(ctx context.Context, reads, writes []ref.Ref, f func(transfer.Env) error) error {
	return e.withTransferAs(ctx, func(*registry.Options) {}, reads, writes, f)
}

// transferGC is by how many percent memory may grow between two collections while images move.
const transferGC = 25

// withTransferAs is withTransfer with other options of the registries than the flags say.
func (e *env) withTransferAs(ctx context.Context, adjust func(*registry.Options), reads, writes []ref.Ref, f func(transfer.Env) error) error {
	// Bytes stream: there is little garbage, and what the collector lets stand is most of a transfer's memory.
	defer debug.SetGCPercent(debug.SetGCPercent(transferGC))
	o := e.registry()
	adjust(&o)
	var done func()
	env := transfer.Env{Stdout: e.stdout, Now: e.now}
	o.Events, done = e.transferProgress()
	defer done()
	client := registry.New(o)
	defer client.Close()
	env.Registry = client
	written, used := inStore(writes), inStore(reads) || inStore(writes)
	if !used {
		return f(env)
	}
	return e.withStore(ctx, store.Options{ReadOnly: !written}, func(st *store.Store) error {
		env.Store = st
		return f(env)
	})
}

// transferProgress shows what moves: on a terminal all of it, else a line now and then when it takes long; and warnings always.
// done ends it.
func (e *env) transferProgress() (_ event.Sink, done func()) {
	if cols, _ := e.size(); cols > 0 && !e.globals.silent {
		if term := e.getenv("TERM"); term != "" && term != "dumb" {
			d := ui.New(ui.TTY, e.stderr, ui.Options{Now: e.now, Size: e.size, Term: term, NoColor: e.getenv("NO_COLOR") != "", Title: "Transferring"})
			stdout, stderr := e.stdout, e.stderr
			e.stdout, e.stderr = d.Writer(stdout), d.Writer(stderr) // the same terminal, most often
			return d.Sink(), func() {
				d.Close()
				e.stdout, e.stderr = stdout, stderr
			}
		}
	}
	m := newMovement(e, nil)
	return func(ev event.Event) {
		if ev.Kind == event.Warning {
			e.note("warning: %s", ev.Text)
		}
		if !e.globals.silent {
			m.event(ev)
		}
	}, m.close
}

func inStore(refs []ref.Ref) bool {
	for _, r := range refs {
		if r.Kind == ref.Store {
			return true
		}
	}
	return false
}

// transferFlags are the flags of every command that moves images.
type transferFlags struct {
	platforms []string
	ifMatch   string
	options   transfer.Options
}

func (t *transferFlags) add(f *pflag.FlagSet) {
	f.StringSliceVarP(&t.platforms, "platform", "p", nil, "`OS/ARCH[/VARIANT],...` these only")
	f.IntVarP(&t.options.Concurrency, "concurrency", "j", 0, "`N` transfers at once (default 32)")
	f.IntVar(&t.options.Concurrency, "jobs", 0, "crane's spelling of --concurrency")
	f.Lookup("jobs").Hidden = true
	f.BoolVar(&t.options.DryRun, "dry-run", false, "change nothing, and say what would be done")
	f.StringVar(&t.ifMatch, "if-match", "", "`DIGEST|none` write the tag only if it points at DIGEST, or does not exist; else exit code 5")
}

// addWithout adds the flags but one, which this command has no use for.
func (t *transferFlags) addWithout(f *pflag.FlagSet, without string) {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	t.add(all)
	all.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != without {
			f.AddFlag(flag)
		}
	})
}

// parse makes options of the flags.
func (t *transferFlags) parse() (o transfer.Options, err error) {
	o = t.options
	if o.Concurrency < 0 || o.Concurrency > 1000 {
		return o, usagef("--concurrency %d: want 1 to 1000", o.Concurrency)
	}
	if len(t.platforms) > 0 && !(len(t.platforms) == 1 && t.platforms[0] == "all") {
		if o.Platforms, err = parsePlatforms(t.platforms); err != nil {
			return o, err
		}
	}
	if o.Condition, err = transfer.ParseCondition(t.ifMatch); err != nil {
		return o, usagef("--if-match: %w", err)
	}
	return o, nil
}

// reported writes what a transfer did, for people.
func (e *env) reported(r transfer.Report, dry bool) {
	for _, n := range r.Notes {
		e.note("note: %s", n)
	}
	if !dry {
		if !e.globals.silent {
			e.note("moved %s and %s (%s); %s mounted, %s there already", count(r.Manifests, "manifest"), count(r.Blobs, "blob"),
				bytesText(r.Bytes), count(r.Mounted, "blob"), count(r.Skipped, "object"))
		}
		return
	}
	e.note("would write %s and %s, %s; %s mounted, %s there already; %s", count(r.Manifests, "manifest"), count(r.Blobs, "blob"),
		bytesText(r.Bytes), count(r.Mounted, "blob"), count(r.Skipped, "object"), count(int(r.Requests), "request"))
}

// writeMetadata writes buildx's metadata file of an index that went to names; path "" is none.
func writeMetadata(path string, desc ocispec.Descriptor, names []ref.Ref) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(metadataOf(desc, names), "", "  ")
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return writeFile(path, append(data, '\n'))
}

// metadataOf is buildx's metadata of an index that went to names.
func metadataOf(desc ocispec.Descriptor, names []ref.Ref) metadata {
	texts := make([]string, 0, len(names))
	for _, n := range names {
		texts = append(texts, n.String())
	}
	return metadata{Descriptor: desc, Digest: desc.Digest.String(), Name: strings.Join(texts, ",")}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
