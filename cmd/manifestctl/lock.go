package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func newLock(e *env) *cobra.Command {
	b := buildFlags{verify: "off", provenance: "false", sbom: "false"}
	var check bool
	cmd := &cobra.Command{
		Use:   "lock [flags] [CONTEXT]",
		Short: "Pin the base images of a spec or Dockerfile to digests",
		Long: "lock finds out what the names of all images that a build uses mean now, for every platform, and writes it to\n" +
			"manifestctl.lock beside the spec or Dockerfile. build uses what is locked; build --locked uses nothing else. Entries of other\n" +
			"files in the directory stay. It prints what changed, a line an image.",
		Example: "  manifestctl lock --platform linux/amd64,linux/arm64 .\n" +
			"  manifestctl lock --check && manifestctl build --locked -t app .",
		Args: positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
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
			o, err := (&hostFlags{}).options(e)
			if err != nil {
				return err
			}
			o.Registry, o.Pull = e.registry(), true
			return e.withStore(cmd.Context(), store.Options{}, func(st *store.Store) error {
				res, err := build.Lock(cmd.Context(), st, req, o)
				if err != nil {
					return err
				}
				return e.writeLock(res, check)
			})
		},
	}
	f := cmd.Flags()
	b.inputFlags.add(f)
	b.dockerfile.set = f
	f.StringVarP(&b.file, "file", "f", "", "`FILE` the spec or the Dockerfile (default: rootfs.yaml or Dockerfile in the context)")
	f.StringVar(&b.dockerfile.target, "target", "", "`STAGE` lock what this stage of the Dockerfile needs")
	f.BoolVar(&check, "check", false, "write nothing, and fail with exit code 4 when something would change")
	return cmd
}

// writeLock writes a lock file, or says that it is to be written.
func (e *env) writeLock(res build.LockResult, check bool) error {
	for _, c := range res.Changes {
		if err := e.println(c); err != nil {
			return err
		}
	}
	if old, err := os.ReadFile(res.Path); err == nil && bytes.Equal(old, res.Data) {
		return nil
	}
	if check {
		return fmt.Errorf("%w: %q is not up to date", errFindings, res.Path)
	}
	return writeFile(res.Path, res.Data)
}
