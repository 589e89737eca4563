package mirrors_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/mirrors"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

func parse(t *testing.T, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	require.NoError(t, err)
	return r
}

// places spells out where a reference leads: "mirror HOST/REPO:TAG insecure".
func places(t *testing.T, c *mirrors.Config, s string, pull bool) string {
	t.Helper()
	ps, err := c.Places(parse(t, s), pull)
	require.NoError(t, err)
	var out []string
	for _, p := range ps {
		text := p.Ref.String()
		if p.Mirror {
			text = "mirror " + text
		}
		if p.Insecure {
			text += " insecure"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestPlaces(t *testing.T) {
	c, err := mirrors.Parse([]byte(`
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub"
[[registry.mirror]]
location = "digests.example/hub"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "Tags.example/hub"
pull-from-mirror = "tag-only"
insecure = true

[[registry]]
prefix = "moved.example/foo"
location = "new.example/bar"

[[registry]]
prefix = "moved.example/foo/secret"
blocked = true

[[registry]]
prefix = "only.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.example/only"

[[registry]]
prefix = "*.corp.example"
insecure = true
[[registry.mirror]]
location = "mirror.example:5000"

[[registry]]
location = "host.example:5000"
insecure = true

[[registry]]
prefix = "pinned.example/app:1.0"
location = "elsewhere.example/app:1.0"

[[registry]]
prefix = "*.moved.test"
location = "one.example"
`))
	require.NoError(t, err)
	for in, want := range map[string]string{
		"debian":                          "mirror mirror.example:5000/hub/library/debian:latest, mirror tags.example/hub/library/debian:latest insecure, docker.io/library/debian:latest",
		"debian@" + digest:                "mirror mirror.example:5000/hub/library/debian@" + digest + ", mirror digests.example/hub/library/debian@" + digest + ", docker.io/library/debian@" + digest,
		"moved.example/foo:1":             "new.example/bar:1",
		"moved.example/foo/x/y:1":         "new.example/bar/x/y:1",
		"moved.example/foobar:1":          "moved.example/foobar:1",
		"only.example/a:1":                "only.example/a:1",
		"only.example/a@" + digest:        "mirror mirror.example/only/a@" + digest + ", only.example/a@" + digest,
		"a.corp.example/x:1":              "mirror mirror.example:5000/x:1, a.corp.example/x:1 insecure",
		"a.b.corp.example:5000/x:1":       "mirror mirror.example:5000:5000/x:1", // see below
		"corp.example/x:1":                "corp.example/x:1",
		"notcorp.example/x:1":             "notcorp.example/x:1",
		"host.example:5000/x:1":           "host.example:5000/x:1 insecure",
		"host.example/x:1":                "host.example/x:1",
		"host.example:50001/x:1":          "host.example:50001/x:1",
		"only.example:5000/a@" + digest:   "only.example:5000/a@" + digest, // another registry
		"pinned.example/app:1.0":          "elsewhere.example/app:1.0",
		"pinned.example/app:1.0.1":        "pinned.example/app:1.0.1",
		"a.moved.test/x:1":                "one.example/x:1",
		"untouched.example/x:1@" + digest: "untouched.example/x:1@" + digest,
	} {
		if in == "a.b.corp.example:5000/x:1" {
			_, err := c.Places(parse(t, in), true)
			require.ErrorIs(t, err, mirrors.ErrInvalid, "a mirror with a port and a wildcard with another")
			continue
		}
		assert.Equal(t, want, places(t, c, in, true), in)
	}
	assert.Equal(t, "docker.io/library/debian:latest", places(t, c, "debian", false), "nothing is pushed to a mirror")
	assert.Equal(t, "new.example/bar:1", places(t, c, "moved.example/foo:1", false))
	for _, pull := range []bool{true, false} {
		_, err = c.Places(parse(t, "moved.example/foo/secret/x:1"), pull)
		require.ErrorIs(t, err, mirrors.ErrBlocked)
		assert.Contains(t, err.Error(), "moved.example/foo/secret/x:1")
	}
	assert.Equal(t, "docker.io/library/debian:latest", places(t, &mirrors.Config{}, "debian", true))
}

func TestExpand(t *testing.T) {
	const aliases = "[aliases]\n\"debian\" = \"quay.io/mine/debian\"\n\"team/app\" = \"r.example/app\"\n"
	for name, tc := range map[string]struct {
		conf, in, want string
	}{
		"no file: docker's rule":          {"", "debian", "debian"},
		"an alias":                        {aliases, "debian:1", "quay.io/mine/debian:1"},
		"an alias with a path":            {aliases, "team/app@" + digest, "r.example/app@" + digest},
		"not an alias of a part":          {aliases, "debian/x", "debian/x"},
		"a whole name is no short one":    {aliases, "docker.io/library/debian", "docker.io/library/debian"},
		"docker://":                       {aliases, "docker://debian", "docker://debian"},
		"other places":                    {`unqualified-search-registries = ["quay.io"]`, "oci:debian", "oci:debian"},
		"the store":                       {`unqualified-search-registries = ["quay.io"]`, "store:debian", "store:debian"},
		"one registry to search":          {`unqualified-search-registries = ["R.example"]`, "team/x:1", "r.example/team/x:1"},
		"docker.io's library":             {`unqualified-search-registries = ["docker.io"]`, "debian", "docker.io/library/debian"},
		"many, and docker.io is one":      {"unqualified-search-registries = [\"quay.io\", \"docker.io\"]\nshort-name-mode = \"permissive\"", "x", "docker.io/library/x"},
		"many without docker.io":          {"unqualified-search-registries = [\"quay.io\", \"r.example\"]\nshort-name-mode = \"disabled\"", "x", "quay.io/x"},
		"many, and certainty is wanted":   {`unqualified-search-registries = ["quay.io", "docker.io"]`, "x:1", ""},
		"an alias beside many registries": {"unqualified-search-registries = [\"quay.io\", \"docker.io\"]\n" + aliases, "debian", "quay.io/mine/debian"},
		"what is no reference":            {`unqualified-search-registries = ["quay.io"]`, "A B", "A B"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := mirrors.Parse([]byte(tc.conf))
			require.NoError(t, err)
			got, err := c.Expand(tc.in)
			if tc.want == "" {
				require.ErrorIs(t, err, mirrors.ErrAmbiguous)
				assert.Contains(t, err.Error(), "quay.io/x:1, docker.io/library/x:1")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestParse_invalid(t *testing.T) {
	for name, tc := range map[string]struct{ conf, text string }{
		"no TOML":               {"[[registry]\n", "line 1"},
		"another type":          {"\n[[registry]]\nlocation = 5\n", "line 3"},
		"neither":               {"[[registry]]\ninsecure = true\n", "neither prefix nor location"},
		"a scheme":              {"[[registry]]\nlocation = \"https://r.example\"\n", "without scheme"},
		"no host":               {"[[registry]]\nprefix = \"r.example\"\nlocation = \"internal/x\"\n", "not a host"},
		"a mirror without":      {"[[registry]]\nprefix = \"r.example\"\n[[registry.mirror]]\ninsecure = true\n", "location of a mirror is missing"},
		"a use nobody knows":    {"[[registry]]\nprefix = \"r.example\"\n[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"never\"\n", "want all"},
		"two ways of one thing": {"[[registry]]\nprefix = \"r.example\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"all\"\n", "cannot both be"},
		"a mode":                {"short-name-mode = \"maybe\"\n", "short-name-mode"},
		"an alias with a tag":   {"[aliases]\n\"a\" = \"r.example/a:1\"\n", "without tag"},
		"an alias to a part":    {"[aliases]\n\"a\" = \"b\"\n", "HOST/REPOSITORY"},
		"a wildcard's path":     {"[[registry]]\nprefix = \"*.example/x\"\n", "hosts only"},
		"a search by path":      {"unqualified-search-registries = [\"r.example/x\"]\n", "not HOST"},
		"both versions":         {"unqualified-search-registries = [\"r.example\"]\n[registries.search]\nregistries = [\"r.example\"]\n", "mixes version 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mirrors.Parse([]byte(tc.conf))
			require.ErrorIs(t, err, mirrors.ErrInvalid)
			assert.Contains(t, err.Error(), tc.text)
		})
	}
	c, err := mirrors.Parse([]byte("[registries.search]\nregistries = [\"r.example\"]\n[registries.insecure]\nregistries = [\"i.example\"]\n[registries.block]\nregistries = [\"b.example\"]\n"))
	require.NoError(t, err, "version 1")
	assert.Equal(t, "i.example/x:1 insecure", places(t, c, "i.example/x:1", true))
	_, err = c.Places(parse(t, "b.example/x:1"), true)
	require.ErrorIs(t, err, mirrors.ErrBlocked)
}

func TestLoad_files(t *testing.T) {
	system, home := t.TempDir(), t.TempDir()
	user := filepath.Join(home, ".config", "containers")
	write := func(path, text string) string {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	env := map[string]string{"HOME": home}
	where := func(host string) string {
		t.Helper()
		c, err := mirrors.Load(mirrors.Options{System: system, Getenv: func(n string) string { return env[n] }})
		require.NoError(t, err)
		return places(t, c, host+"/x:1", true)
	}
	leads := func(prefix, to string) string {
		return "[[registry]]\nprefix = \"" + prefix + "\"\nlocation = \"" + to + "\"\n"
	}
	assert.Equal(t, "a.example/x:1", where("a.example"), "no file at all")
	write(filepath.Join(system, "registries.conf"), leads("a.example", "system.example")+leads("b.example", "system.example"))
	assert.Equal(t, "system.example/x:1", where("a.example"))
	write(filepath.Join(system, "registries.conf.d", "20.conf"), leads("a.example", "twenty.example"))
	write(filepath.Join(system, "registries.conf.d", "10.conf"), leads("a.example", "ten.example"))
	write(filepath.Join(system, "registries.conf.d", "30.conf.bak"), leads("a.example", "backup.example"))
	assert.Equal(t, "twenty.example/x:1", where("a.example"), "the last one counts")
	assert.Equal(t, "system.example/x:1", where("b.example"))
	write(filepath.Join(user, "registries.conf.d", "01.conf"), leads("a.example", "user-drop.example"))
	assert.Equal(t, "user-drop.example/x:1", where("a.example"), "the user's come after the machine's")
	write(filepath.Join(user, "registries.conf"), leads("c.example", "user.example"))
	assert.Equal(t, "user.example/x:1", where("c.example"))
	assert.Equal(t, "user-drop.example/x:1", where("a.example"))
	assert.Equal(t, "b.example/x:1", where("b.example"), "the user's file stands in the machine's stead")
	env["CONTAINERS_REGISTRIES_CONF"] = write(filepath.Join(t.TempDir(), "mine.conf"), leads("a.example", "mine.example"))
	assert.Equal(t, "mine.example/x:1", where("a.example"))
	assert.Equal(t, "c.example/x:1", where("c.example"), "that one alone")

	env["CONTAINERS_REGISTRIES_CONF"] = filepath.Join(home, "missing")
	_, err := mirrors.Load(mirrors.Options{System: system, Getenv: func(n string) string { return env[n] }})
	require.ErrorIs(t, err, os.ErrNotExist)
	broken := write(filepath.Join(home, "broken.conf"), "x = [")
	_, err = mirrors.Load(mirrors.Options{File: broken})
	require.ErrorIs(t, err, mirrors.ErrInvalid)
	assert.Contains(t, err.Error(), broken)
}

// FuzzParse holds that no file makes the parser fail otherwise than by an error, nor a reference lead to none.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \"m.example/hub\"\n",
		"[[registry]]\nprefix = \"*.example\"\nlocation = \"m.example\"\n", "[aliases]\n\"a\" = \"r.example/b\"\n", "unqualified-search-registries = [\"r.example\"]\n",
	} {
		f.Add([]byte(s), "docker.io/library/debian:1")
	}
	f.Fuzz(func(t *testing.T, conf []byte, name string) {
		c, err := mirrors.Parse(conf)
		if err != nil {
			return
		}
		if full, err := c.Expand(name); err == nil && len(full) < 200 {
			if _, err := ref.Parse(name); err == nil {
				_, err = ref.Parse(full)
				require.NoError(t, err, "%q became %q", name, full)
			}
		}
		r, err := ref.Parse(name)
		if err != nil || r.Kind != ref.Registry {
			return
		}
		ps, err := c.Places(r, true)
		if err != nil {
			return
		}
		require.NotEmpty(t, ps)
		for _, p := range ps {
			again, err := ref.Parse(p.Ref.String())
			require.NoError(t, err)
			assert.Equal(t, p.Ref, again)
			assert.Equal(t, r.Digest, p.Ref.Digest)
		}
		assert.False(t, ps[len(ps)-1].Mirror)
	})
}
