package graph_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

func TestAccountsApply(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/sbin/nologin\n"
	const group = "root:x:0:\nweb:x:33:\naudio:x:29:pulse"
	app := graph.User{Name: "app", UID: 1000, GID: 1000, Home: "/", Shell: "/sbin/nologin"}
	with := func(groups ...string) graph.User { u := app; u.Groups = groups; return u }
	for name, tc := range map[string]struct {
		passwd, group string
		a             graph.Accounts
		wantPasswd    string
		wantGroup     string
		wantErr       error
	}{
		"empty rootfs": {
			a:          graph.Accounts{Users: []graph.User{app}},
			wantPasswd: "app:x:1000:1000::/:/sbin/nologin\n", wantGroup: "app:x:1000:\n",
		},
		"appended, last line without its end": {
			passwd: passwd, group: group, a: graph.Accounts{Users: []graph.User{with("audio", "web")}},
			wantPasswd: passwd + "app:x:1000:1000::/:/sbin/nologin\n",
			wantGroup:  "root:x:0:\nweb:x:33:app\naudio:x:29:pulse,app\napp:x:1000:\n",
		},
		"declared group is used": {
			a:          graph.Accounts{Groups: []graph.Group{{Name: "staff", GID: 1000}}, Users: []graph.User{app}},
			wantPasswd: "app:x:1000:1000::/:/sbin/nologin\n", wantGroup: "staff:x:1000:\n",
		},
		"there already": {
			passwd: passwd, group: "root:x:0:\nweb:x:33:\n",
			a:          graph.Accounts{Users: []graph.User{{Name: "web", UID: 33, GID: 33}}, Groups: []graph.Group{{Name: "web", GID: 33}}},
			wantPasswd: passwd, wantGroup: "root:x:0:\nweb:x:33:\n",
		},
		"other number":       {passwd: passwd, group: group, a: graph.Accounts{Users: []graph.User{{Name: "web", UID: 34, GID: 33}}}, wantErr: graph.ErrAccounts},
		"other group":        {passwd: passwd, group: group, a: graph.Accounts{Users: []graph.User{{Name: "web", UID: 33, GID: 0}}}, wantErr: graph.ErrAccounts},
		"number taken":       {passwd: passwd, group: group, a: graph.Accounts{Users: []graph.User{{Name: "x", UID: 33, GID: 33}}}, wantErr: graph.ErrAccounts},
		"group number taken": {passwd: passwd, group: group, a: graph.Accounts{Groups: []graph.Group{{Name: "x", GID: 29}}}, wantErr: graph.ErrAccounts},
		"unknown group":      {a: graph.Accounts{Users: []graph.User{with("nope")}}, wantErr: graph.ErrAccounts},
	} {
		t.Run(name, func(t *testing.T) {
			p, g, err := tc.a.Apply([]byte(tc.passwd), []byte(tc.group))
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr == nil {
				assert.Equal(t, tc.wantPasswd, string(p))
				assert.Equal(t, tc.wantGroup, string(g))
				p2, g2, err := tc.a.Apply(p, g)
				require.NoError(t, err)
				assert.Equal(t, string(p), string(p2), "applied twice")
				assert.Equal(t, string(g), string(g2), "applied twice")
			}
		})
	}
}

func TestXattrsAreDigestedByTheirBytes(t *testing.T) {
	digestOf := func(value string) string {
		op := graph.Layer{Entries: []graph.Entry{{Path: "/x", Xattrs: graph.Xattrs{"security.capability": value}}}}
		return graph.New(op, platform.Platform{}, graph.Meta{}).Digest().String()
	}
	assert.NotEqual(t, digestOf("\xff\x01"), digestOf("\xfe\x01"))
}
