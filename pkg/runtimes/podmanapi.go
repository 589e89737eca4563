package runtimes

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// libpod is the version of podman's API that is spoken: that of podman 4.
const libpod = "/v4.0.0/libpod"

// podmanAPI is podman behind a socket.
type podmanAPI struct {
	api   *api
	store string // how references name its storage: DRIVER@ROOT+RUNROOT
}

var _ Runtime = (*podmanAPI)(nil)

func openPodmanSocket(ctx context.Context, env Env) (Runtime, error) {
	var a *api
	var err error
	if host := env.Getenv("CONTAINER_HOST"); host != "" {
		a, err = dial(host, "", env)
	} else {
		var sockets []string
		if dir := env.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			sockets = append(sockets, filepath.Join(dir, "podman", "podman.sock"))
		}
		a, err = socket(append(sockets, filepath.Join(env.Root, "/run/podman/podman.sock")), env)
	}
	if err != nil {
		return nil, err
	}
	var v dockerVersion
	if err := a.get(ctx, "/version", &v); err != nil {
		return nil, err
	}
	return newPodmanAPI(ctx, a, v)
}

func newPodmanAPI(ctx context.Context, a *api, v dockerVersion) (Runtime, error) {
	if major, _, _ := strings.Cut(v.Version, "."); len(major) == 1 && major < "4" {
		return nil, fmt.Errorf("%w: podman %s at %s: this needs 4 or later", ErrNone, v.Version, a.name)
	}
	var info struct {
		Store struct{ GraphDriverName, GraphRoot, RunRoot string }
	}
	if err := a.get(ctx, libpod+"/info", &info); err != nil {
		return nil, err
	}
	return &podmanAPI{a, info.Store.GraphDriverName + "@" + info.Store.GraphRoot + "+" + info.Store.RunRoot}, nil
}

// String implements fmt.Stringer.
func (p *podmanAPI) String() string { return "podman at " + p.api.name }

// Holds implements Runtime.
func (p *podmanAPI) Holds(ps []platform.Platform) ([]int, string, error) { return every(ps), "", nil }

// Expands implements Runtime.
func (p *podmanAPI) Expands() bool { return false }

// Load implements Runtime.
func (p *podmanAPI) Load(ctx context.Context, b Bundle) error {
	load := func(ctx context.Context, image int, named bool) error {
		resp, err := p.api.post(ctx, libpod+"/images/load", func(ctx context.Context, w io.Writer) error { return b.OCI(ctx, w, image, named) })
		if err != nil {
			return err
		}
		var got struct{ Names []string }
		return decode(resp, &got)
	}
	return loadList(ctx, b, load, lister{
		create: func(ctx context.Context, name string, ids []string) error {
			q := url.Values{}
			for _, id := range ids {
				q.Add("images", "containers-storage:["+p.store+"]"+id)
			}
			return p.send(ctx, http.MethodPost, "/manifests/"+url.PathEscape(name)+"?"+q.Encode())
		},
		tag: func(ctx context.Context, name, as string) error {
			at := strings.LastIndexByte(as, ':')
			q := url.Values{"repo": {as[:at]}, "tag": {as[at+1:]}}
			return p.send(ctx, http.MethodPost, "/images/"+url.PathEscape(name)+"/tag?"+q.Encode())
		},
		remove: func(ctx context.Context, name string) error {
			return p.send(ctx, http.MethodDelete, "/manifests/"+url.PathEscape(name))
		},
	})
}

func (p *podmanAPI) send(ctx context.Context, method, path string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := p.api.do(ctx, method, libpod+path, nil, "")
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return resp.Body.Close()
}
