package sandbox

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// Whole says that there are no namespaces, and so no overlays: a rootfs is one whole tree, which a step changes in place
// (Step.Tree), and Unpack lays a layer over what is in its directory.
func (p *Pool) Whole() bool { return p.plan.mode.whole() }

// runWhole runs a step on a whole tree. What it changed is what a look at every file before and after tells.
func (p *Pool) runWhole(ctx context.Context, s Step, ws *wireStep) error {
	switch {
	case s.Tree == "":
		return fmt.Errorf("running a step: %w: no tree", fs.ErrInvalid)
	case s.ReadOnly:
		return fmt.Errorf("running a step: %w: a read-only rootfs needs a mount namespace: %s", ErrHost, mendContainer())
	case s.Insecure:
		return fmt.Errorf("running a step: %w: --security=insecure needs a user namespace: %s", ErrHost, mendContainer())
	}
	var before *layer.State
	if s.Diff != nil {
		var err error
		if before, err = layer.ReadState(ctx, s.Tree, p.Ownership()); err != nil {
			return err
		}
	}
	ws.Diff, ws.Keep = false, ""
	run := p.run
	if p.swap != nil {
		run = p.runInPlace
	}
	if err := run(ctx, s, ws); err != nil {
		return err
	}
	if s.Diff != nil {
		err := layer.Diff(ctx, s.Tree, s.Diff, layer.DiffOptions{
			Ownership: p.Ownership(), Clamp: s.Clamp, Before: before, Content: s.Content,
		})
		if err != nil {
			return err
		}
	}
	if s.Keep != "" && s.Keep != s.Tree {
		if err := layer.RenameTree(s.Tree, s.Keep); err != nil {
			return fmt.Errorf("keeping the tree: %w", err)
		}
	}
	return nil
}

// Notice says what is different about the steps of this pool from those of others; "": nothing.
func (p *Pool) Notice() string {
	if p.swap != nil {
		return p.inPlaceNotice()
	}
	if !p.Whole() || p.o.Mode == ModeChroot {
		return ""
	}
	return "no user namespace is to be had here, so steps run in a chroot: they see the network, host name and process numbers of this container, " +
		"set-uid programs do not gain privileges, and every step costs a look at all files. For namespaces: " + mendContainer()
}
