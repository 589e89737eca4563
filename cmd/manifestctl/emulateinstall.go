package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
)

func newEmulateInstall(e *env) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "install --from REF|FILE [PLATFORM...]",
		Short: "Take emulators out of an image or a package, for this user",
		Long: "install takes qemu's user mode emulators for this machine out of an image (in a registry, the store, a layout or an archive:\n" +
			"tonistiigi/binfmt, multiarch/qemu-user-static) or out of the Debian package qemu-user-static, and puts them into the\n" +
			"user's data directory, where every build finds them before those in $PATH. Nothing is registered on the host, and no root is needed.\n\n" +
			"An emulator must be a static program of this machine's architecture; others are told and left out. Without PLATFORM all there are\n" +
			"are taken. `emulate ls` shows what is used then; what was installed goes away with its file.",
		Example: "  manifestctl emulate install --from docker.io/tonistiigi/binfmt\n" +
			"  manifestctl emulate install --from oci-archive:binfmt.tar linux/arm64 linux/riscv64\n" +
			"  manifestctl emulate install --from qemu-user-static_7.2_amd64.deb",
		Args: positional(0, 1<<10, "platforms"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := build.EmulatorsFrom{Dir: e.emulatorDir()}
			for _, a := range args {
				p, err := platform.Parse(strings.ToLower(a))
				if err != nil {
					return err
				}
				o.Arches = append(o.Arches, p.Arch)
			}
			if from == "" {
				return usagef("--from is missing: an image or a file that has emulators")
			}
			got, err := e.installEmulators(cmd.Context(), from, o)
			if err != nil {
				return err
			}
			for _, r := range got.Refused {
				e.note("left out: %v", r)
			}
			rows := [][]string{{"PLATFORM", "EMULATOR", "VERSION"}}
			for _, i := range got.Installed {
				rows = append(rows, []string{"linux/" + i.Arch, i.Path, i.Version + after("; warning: ", i.Warning)})
			}
			return e.printTable(rows)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "`REF|FILE` image or file to take them from")
	return cmd
}

// installEmulators takes what is a file for one, unless a prefix says what it is.
func (e *env) installEmulators(ctx context.Context, from string, o build.EmulatorsFrom) (got build.EmulatorsInstalled, err error) {
	if st, statErr := os.Stat(from); statErr == nil && st.Mode().IsRegular() {
		got, err = build.InstallEmulatorsFile(ctx, &source.Opener{}, from, o)
		return got, err
	} else if strings.HasSuffix(from, ".deb") && errors.Is(statErr, os.ErrNotExist) {
		return got, fmt.Errorf("%w: %w", source.ErrNotFound, statErr)
	}
	r, err := e.readRef(from)
	if err != nil {
		return got, err
	}
	err = e.withOpener(ctx, r, func(opener *source.Opener) (err error) {
		got, err = build.InstallEmulators(ctx, opener, r, o)
		return err
	})
	return got, err
}
