package llb_test

import (
	"testing"

	bk "github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
)

// TestDevices_E31 gives a step the devices that are described and allowed, and says what it does not get.
func TestDevices_E31(t *testing.T) {
	described := func(name string) []llb.Device {
		return map[string][]llb.Device{
			"v/c": {{Name: "v/c=0"}}, "v/c=0": {{Name: "v/c=0"}}, "v/c=*": {{Name: "v/c=0"}, {Name: "v/c=1"}}, "free": {{Name: "v/f=0", Free: true}},
		}[name]
	}
	for name, tc := range map[string]struct {
		asked    string
		optional bool
		allow    llb.Allow
		want     []string
		wantErr  error
		warned   bool
	}{
		"required and missing":    {asked: "v/none", wantErr: llb.ErrUnsupported},
		"optional and missing":    {asked: "v/none", optional: true, warned: true},
		"not allowed":             {asked: "v/c=0", wantErr: llb.ErrNotAllowed},
		"optional, not allowed":   {asked: "v/c=0", optional: true, wantErr: llb.ErrNotAllowed},
		"all are allowed":         {asked: "v/c=*", allow: llb.Allow{Device: true}, want: []string{"v/c=0", "v/c=1"}},
		"allowed by its name":     {asked: "v/c", allow: llb.Allow{Devices: []string{"v/c=0"}}, want: []string{"v/c=0"}},
		"allowed by a pattern":    {asked: "v/c=*", allow: llb.Allow{Devices: []string{"v/c=*"}}, want: []string{"v/c=0", "v/c=1"}},
		"one of two is allowed":   {asked: "v/c=*", allow: llb.Allow{Devices: []string{"v/c=0"}}, wantErr: llb.ErrNotAllowed},
		"another one is allowed":  {asked: "v/c=0", allow: llb.Allow{Devices: []string{"v/d=0"}}, wantErr: llb.ErrNotAllowed},
		"free to all by its file": {asked: "free", want: []string{"v/f=0"}},
	} {
		t.Run(name, func(t *testing.T) {
			opts := []bk.CDIDeviceOption{bk.CDIDeviceName(tc.asked)}
			if tc.optional {
				opts = append(opts, bk.CDIDeviceOptional)
			}
			def, err := bk.Image("busybox").Run(bk.Args([]string{"x"}), bk.AddCDIDevice(opts...)).Root().Marshal(t.Context(), bk.LinuxAmd64)
			require.NoError(t, err)
			warned := false
			v, err := llb.Decode(def.ToPB(), llb.Options{Allow: tc.allow, Devices: described, Warn: func(string, string) { warned = true }})
			require.ErrorIs(t, err, tc.wantErr)
			assert.Equal(t, tc.warned, warned)
			if err == nil {
				exec, ok := v.Op.(graph.Exec)
				require.True(t, ok)
				assert.Equal(t, tc.want, exec.Devices)
			}
		})
	}
}
