package llb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"

	bk "github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

var amd64 = platform.Platform{OS: "linux", Arch: "amd64"}

// marshal gives the definition of a state of BuildKit's client.
func marshal(t testing.TB, st bk.State) *llb.Definition {
	t.Helper()
	def, err := st.Marshal(context.Background(), bk.Platform(ocispec.Platform{OS: "linux", Architecture: "amd64"}))
	require.NoError(t, err)
	return def.ToPB()
}

func decode(t *testing.T, st bk.State, o llb.Options) *graph.Vertex {
	t.Helper()
	o.Platform = amd64
	v, err := llb.Decode(marshal(t, st), o)
	require.NoError(t, err)
	roundTrip(t, v, o)
	return v
}

// show is a vertex without its platform and names.
func show(t *testing.T, v *graph.Vertex) string {
	t.Helper()
	if v == nil {
		return "scratch"
	}
	op, err := json.Marshal(v.Op)
	require.NoError(t, err)
	out := v.Op.Kind() + string(op)
	for _, in := range v.Inputs {
		out += " <" + show(t, in) + ">"
	}
	return out
}

func TestSources(t *testing.T) {
	dgst := digest.FromString("x")
	for name, tc := range map[string]struct {
		st   bk.State
		want string
	}{
		"scratch":      {bk.Scratch(), "scratch"},
		"image":        {bk.Image("busybox"), `image{"ref":"docker.io/library/busybox:latest","filesOnly":true}`},
		"image pulled": {bk.Image("busybox:1", bk.ResolveModeForcePull), `image{"ref":"docker.io/library/busybox:1","filesOnly":true,"pull":true}`},
		"image with limits": {
			bk.Image("h.io/x@"+dgst.String(), bk.WithLayerLimit(2), bk.WithImageChecksum(dgst)),
			fmt.Sprintf(`image{"ref":"h.io/x@%[1]s","filesOnly":true,"layers":2,"checksum":"%[1]s"}`, dgst),
		},
		"layout": {
			bk.OCILayout("name@"+dgst.String(), bk.OCIStore("session", "here")),
			fmt.Sprintf(`image{"ref":"oci:/here@%s","filesOnly":true}`, dgst),
		},
		"local": {
			bk.Local("ctx", bk.FollowPaths([]string{"a"}), bk.ExcludePatterns([]string{"b"}), bk.IncludePatterns([]string{"c"}), bk.SharedKeyHint("k")),
			`local{"context":"ctx","include":["c"],"exclude":["b"],"follow":["a"],"raw":true}`,
		},
		"http": {
			bk.HTTP("https://e.org/f.tar", bk.Checksum(dgst), bk.Filename("f"), bk.Chmod(0o640), bk.Chown(3, 4)),
			fmt.Sprintf(`http{"url":"https://e.org/f.tar","filename":"f","checksum":"%s","mode":416,"uid":3,"gid":4}`, dgst),
		},
		"git": {
			bk.Git("https://e.org/r.git", "", bk.GitRef("v1"), bk.GitSubDir("sub"), bk.KeepGitDir(), bk.GitMTimeCommit(), bk.GitSkipSubmodules()),
			`git{"remote":"https://e.org/r.git","ref":"v1","subdir":"sub","keepGitDir":true,"noSubmodule":true,"commitTime":true,"tokenSecret":"GIT_AUTH_TOKEN","headerSecret":"GIT_AUTH_HEADER"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := decode(t, tc.st, llb.Options{Layout: func(name string, d digest.Digest) (string, bool) {
				return "oci:/" + name + "@" + d.String(), true
			}})
			assert.Equal(t, tc.want, show(t, v))
		})
	}
}

func TestSessionsAreNoPartOfADigest(t *testing.T) {
	a := decode(t, bk.Local("ctx", bk.SessionID("one")), llb.Options{})
	b := decode(t, bk.Local("ctx", bk.LocalUniqueID("two")), llb.Options{})
	assert.Equal(t, a.Digest(), b.Digest())
}

func TestFileActions(t *testing.T) {
	at := time.Unix(5, 0)
	src := bk.Local("src")
	mode := bk.ChmodOpt{Mode: 0o640}
	st := bk.Image("busybox").
		File(bk.Mkdir("/d", 0o755, bk.WithParents(true), bk.WithUIDGID(1, 2), bk.WithCreatedTime(at)).
			Mkfile("/d/f", 0o600, []byte("x"), bk.WithUser("app:staff")).
			Copy(src, "a*", "/d/", &bk.CopyInfo{
				Mode: &mode, FollowSymlinks: true, CopyDirContentsOnly: true, AttemptUnpack: true, CreateDestPath: true,
				AllowWildcard: true, AllowEmptyWildcard: true, IncludePatterns: []string{"i"}, ExcludePatterns: []string{"e"},
				AlwaysReplaceExistingDestPaths: true,
			}).
			Symlink("/old", "/new").
			Rm("/gone", bk.WithAllowNotFound(true), bk.WithAllowWildcard(true)))
	assert.Equal(t, `file{"actions":[`+
		`{"mkdir":{"path":"/d","mode":493,"parents":true,"owner":{"user":{"id":1},"group":{"id":2}},"time":5000000000}},`+
		`{"mkfile":{"path":"/d/f","mode":384,"data":"eA==","owner":{"user":{"name":"app"},"group":{"name":"staff"}}}},`+
		`{"copy":{"input":1,"src":"/a*","dest":"/d/","mode":416,"followSymlink":true,"dirContents":true,"unpack":true,`+
		`"createDestPath":true,"wildcard":true,"emptyWildcard":true,"replaceExisting":true,"include":["i"],"exclude":["e"]}},`+
		`{"symlink":{"old":"/old","new":"/new"}},{"rm":{"path":"/gone","mayMiss":true,"wildcard":true}}]}`+
		` <image{"ref":"docker.io/library/busybox:latest","filesOnly":true}> <local{"context":"src","raw":true}>`,
		show(t, decode(t, st, llb.Options{})))
}

func TestActionsThatAreUsedTwiceAreVerticesOfTheirOwn(t *testing.T) {
	made := bk.Mkdir("/foo", 0o755).Mkfile("/foo/a", 0o644, nil)
	st := bk.Scratch().File(bk.Mkdir("/bar", 0o755).Copy(made.WithState(bk.Scratch()), "/foo", "/baz"))
	assert.Equal(t, `file{"actions":[{"mkdir":{"path":"/bar","mode":493}},{"copy":{"input":1,"src":"/foo","dest":"/baz"}}]}`+
		` <scratch> <file{"actions":[{"mkdir":{"path":"/foo","mode":493}},{"mkfile":{"path":"/foo/a","mode":420,"data":null}}]} <scratch>>`,
		show(t, decode(t, st, llb.Options{})))
}

func TestExec(t *testing.T) {
	base := bk.Image("busybox")
	st := base.Run(
		bk.Args([]string{"make"}), bk.AddEnv("A", "b"), bk.Dir("/w"), bk.User("u"), bk.Hostname("h"),
		bk.AddExtraHost("db", net.ParseIP("10.0.0.1")), bk.AddUlimit(bk.UlimitNofile, 1, 2), bk.Network(pb.NetMode_NONE),
		bk.WithProxy(bk.ProxyEnv{HTTPProxy: "http://p"}), bk.ValidExitCodes(0, 3),
		bk.AddMount("/cache", bk.Scratch(), bk.AsPersistentCacheDir("id", bk.CacheMountLocked)),
		bk.AddMount("/src", bk.Local("src"), bk.Readonly, bk.SourcePath("/sub")),
		bk.AddMount("/tmp", bk.Scratch(), bk.Tmpfs(bk.TmpfsSize(7))),
		bk.AddSecret("/s", bk.SecretID("s"), bk.SecretFileOpt(1, 2, 0o440)),
		bk.AddSecretWithDest("env", nil, bk.SecretAsEnvName("E"), bk.SecretOptional),
		bk.AddSSHSocket(bk.SSHID("k"), bk.SSHSocketTarget("/ssh"), bk.SSHOptional),
	).Root()
	v := decode(t, st, llb.Options{})
	assert.Equal(t, amd64, v.Platform)
	op, ok := v.Op.(graph.Exec)
	require.True(t, ok)
	mode := func(m uint32) *uint32 { return &m }
	assert.ElementsMatch(t, []graph.Mount{
		{Type: graph.MountSecret, ID: "env", Env: "E"},
		{Type: graph.MountCache, Target: "/cache", ID: "id", Sharing: "locked"},
		{Type: graph.MountBind, Target: "/src", Input: 1, Source: "/sub"},
		{Type: graph.MountTmpfs, Target: "/tmp", Size: 7},
		{Type: graph.MountSecret, Target: "/s", ID: "s", UID: 1, GID: 2, Mode: mode(0o440), Required: true},
		{Type: graph.MountSSH, Target: "/ssh", ID: "k", Mode: mode(0o600)},
	}, op.Mounts)
	op.Mounts = nil
	assert.Contains(t, op.Env, "A=b")
	op.Env = nil
	assert.Equal(t, graph.Exec{
		Args: []string{"make"}, Cwd: "/w", User: "u", Hostname: "h", Network: graph.NetworkNone,
		Hosts: []graph.Host{{Name: "db", IP: "10.0.0.1"}}, Ulimits: []graph.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}},
		Proxy: &graph.Proxy{HTTP: "http://p"}, ExitCodes: []int{0, 3},
	}, op)
}

func TestOutputsOfAStep(t *testing.T) {
	run := bk.Image("busybox").Run(bk.Args([]string{"make"}), bk.AddMount("/src", bk.Local("src"), bk.Readonly))
	out := run.AddMount("/out", bk.Scratch())
	assert.Regexp(t, `^output{"index":2} <exec{.*"output":2.*`, show(t, decode(t, out, llb.Options{})))
	assert.Equal(t, decode(t, run.Root(), llb.Options{}).Op.Kind(), "exec")

	again := bk.Image("busybox").Run(bk.Args([]string{"make"}))
	ro := again.AddMount("/src", bk.Local("src"), bk.Readonly)
	assert.Equal(t, `local{"context":"src","raw":true}`, show(t, decode(t, ro, llb.Options{})), "what a read-only mount leaves is what it was")
}

func TestMergeAndDiff(t *testing.T) {
	a, b := bk.Local("a"), bk.Local("b")
	assert.Equal(t, `merge{} <local{"context":"a","raw":true}> <local{"context":"b","raw":true}>`, show(t, decode(t, bk.Merge([]bk.State{a, b}), llb.Options{})))
	assert.Equal(t, `diff{} <local{"context":"a","raw":true}> <local{"context":"b","raw":true}>`, show(t, decode(t, bk.Diff(a, b), llb.Options{})))
}

func TestProxyOfTheCaller(t *testing.T) {
	st := bk.Image("busybox").Run(bk.Args([]string{"x"})).Root()
	caller := &graph.Proxy{HTTPS: "http://caller"}
	v := decode(t, st, llb.Options{Proxy: caller})
	assert.Equal(t, caller, v.Op.(graph.Exec).Proxy)
	assert.Equal(t, decode(t, st, llb.Options{}).Op.(graph.Exec).ForKey(), v.Op.(graph.Exec).ForKey(), "it is in no key")
}

func TestRefused(t *testing.T) {
	busybox := bk.Image("busybox")
	for name, tc := range map[string]struct {
		st   bk.State
		kind error
		text string
	}{
		"host network":    {busybox.Run(bk.Args([]string{"x"}), bk.Network(pb.NetMode_HOST)).Root(), llb.ErrNotAllowed, "--allow network.host"},
		"insecure":        {busybox.Run(bk.Args([]string{"x"}), bk.Security(pb.SecurityMode_INSECURE)).Root(), llb.ErrNotAllowed, "--allow security.insecure"},
		"device":          {busybox.Run(bk.Args([]string{"x"}), bk.AddCDIDevice(bk.CDIDeviceName("v/c=d"))).Root(), llb.ErrUnsupported, "no CDI file describes it"},
		"cgroup":          {busybox.Run(bk.Args([]string{"x"}), bk.WithCgroupParent("p")).Root(), llb.ErrUnsupported, "parent cgroup (p)"},
		"ulimit":          {busybox.Run(bk.Args([]string{"x"}), bk.AddUlimit("much", 1, 1)).Root(), llb.ErrInvalid, `no limit "much"`},
		"signature":       {bk.HTTP("http://e.org/x", bk.VerifyPGPSignature(bk.HTTPSignatureInfo{PubKey: []byte("k"), Signature: []byte("s")})), llb.ErrUnsupported, "source.http.signatureverify"},
		"metadata only":   {bk.Local("x", bk.MetadataOnlyTransfer([]string{"e"})), llb.ErrUnsupported, "metadatatransfer"},
		"unknown layout":  {bk.OCILayout("x@" + digest.FromString("x").String()), llb.ErrInvalid, "no OCI layout"},
		"worker filter":   {busybox.Run(bk.Args([]string{"x"}), bk.Require("os==plan9")).Root(), llb.ErrUnsupported, "os==plan9"},
		"git with a dash": {bk.Git("https://e.org/r.git", "", bk.GitRef("--upload-pack=x")), llb.ErrInvalid, "dash"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := llb.Decode(marshal(t, tc.st), llb.Options{File: "defs.pb", Platform: amd64})
			require.ErrorIs(t, err, tc.kind)
			assert.ErrorContains(t, err, tc.text)
			assert.ErrorContains(t, err, "defs.pb ")
		})
	}
}

func TestAllowed(t *testing.T) {
	st := bk.Image("busybox").Run(bk.Args([]string{"x"}), bk.Network(pb.NetMode_HOST), bk.Security(pb.SecurityMode_INSECURE)).Root()
	v := decode(t, st, llb.Options{Allow: llb.Allow{NetworkHost: true, SecurityInsecure: true}})
	assert.Equal(t, graph.NetworkHost, v.Op.(graph.Exec).Network)
	assert.Equal(t, graph.SecurityInsecure, v.Op.(graph.Exec).Security)
}

func TestErrorsNameTheLine(t *testing.T) {
	sm := bk.NewSourceMap(nil, "app.hcl", "hcl", []byte("one\ntwo\nthree\nfour\n"))
	at := sm.Location([]*pb.Range{{Start: &pb.Position{Line: 2}, End: &pb.Position{Line: 3}}})
	st := bk.Image("busybox").Run(bk.Args([]string{"x"}), bk.Network(pb.NetMode_HOST), at, bk.WithCustomName("make it")).Root()
	_, err := llb.Decode(marshal(t, st), llb.Options{Platform: amd64})
	var e *llb.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "app.hcl:2", e.Source)
	assert.Equal(t, "make it", e.Name)
	assert.Equal(t, "app.hcl:2\n--------------------\n   1 |     one\n   2 | >>> two\n   3 | >>> three\n   4 |     four\n--------------------\n", e.Lines().String())
}

func TestReadAndWrite(t *testing.T) {
	def := marshal(t, bk.Image("busybox").File(bk.Mkdir("/x", 0o755)))
	var raw, lines bytes.Buffer
	require.NoError(t, llb.Write(&raw, def))
	again, err := llb.Read(&raw)
	require.NoError(t, err)
	a, err := llb.Decode(def, llb.Options{})
	require.NoError(t, err)
	b, err := llb.Decode(again, llb.Options{})
	require.NoError(t, err)
	assert.Equal(t, a.Digest(), b.Digest())
	require.NoError(t, llb.Print(&lines, def))
	assert.Equal(t, 2, bytes.Count(lines.Bytes(), []byte("\n")))

	for name, text := range map[string]string{"not protobuf": "\xff\xff", "a Dockerfile": "FROM busybox\n"} {
		t.Run(name, func(t *testing.T) {
			_, err := llb.Read(bytes.NewReader([]byte(text)))
			require.ErrorIs(t, err, llb.ErrInvalid)
		})
	}
}

func TestMalformed(t *testing.T) {
	op := func(o *pb.Op) []byte { b, err := o.Marshal(); require.NoError(t, err); return b }
	last := func(d []byte, index int64) []byte {
		return op(&pb.Op{Inputs: []*pb.Input{{Digest: digest.FromBytes(d).String(), Index: index}}})
	}
	image := op(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "docker-image://busybox"}}})
	exec := func(e *pb.ExecOp) []byte {
		return op(&pb.Op{Inputs: []*pb.Input{{Digest: digest.FromBytes(image).String()}}, Op: &pb.Op_Exec{Exec: e}})
	}
	file := func(a ...*pb.FileAction) []byte { return op(&pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: a}}}) }
	root := &pb.Mount{Dest: "/"}
	meta := &pb.Meta{Args: []string{"x"}}
	mkdir := &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/x"}}
	for name, ops := range map[string][][]byte{
		"no result":           {image},
		"missing operation":   {last(image, 0)},
		"output of an image":  {image, last(image, 1)},
		"negative output":     {image, last(image, -1)},
		"empty operation":     {op(&pb.Op{}), last(op(&pb.Op{}), 0)},
		"exec without meta":   {image, exec(&pb.ExecOp{Mounts: []*pb.Mount{root}}), last(exec(&pb.ExecOp{Mounts: []*pb.Mount{root}}), 0)},
		"exec without root":   {image, exec(&pb.ExecOp{Meta: meta}), last(exec(&pb.ExecOp{Meta: meta}), 0)},
		"exec with two roots": {image, exec(&pb.ExecOp{Meta: meta, Mounts: []*pb.Mount{root, root}}), last(exec(&pb.ExecOp{Meta: meta, Mounts: []*pb.Mount{root, root}}), 0)},
		"mount of no input":   {image, exec(&pb.ExecOp{Meta: meta, Mounts: []*pb.Mount{{Dest: "/", Input: 7}}}), last(exec(&pb.ExecOp{Meta: meta, Mounts: []*pb.Mount{{Dest: "/", Input: 7}}}), 0)},
		"file without action": {file(), last(file(), 0)},
		"action on itself":    {file(&pb.FileAction{Input: 0, Action: mkdir}), last(file(&pb.FileAction{Input: 0, Action: mkdir}), 0)},
		"unknown source":      {op(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "x://y"}}}), last(op(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "x://y"}}}), 0)},
		"unknown attribute": {
			op(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://y", Attrs: map[string]string{"local.new": "1"}}}}),
			last(op(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://y", Attrs: map[string]string{"local.new": "1"}}}}), 0),
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := llb.Decode(&llb.Definition{Def: ops}, llb.Options{Platform: amd64})
			require.Error(t, err)
			assert.Nil(t, v)
		})
	}
}

func FuzzDecode(f *testing.F) {
	add := func(st bk.State) {
		var b bytes.Buffer
		require.NoError(f, llb.Write(&b, marshal(f, st)))
		f.Add(b.Bytes())
	}
	base := bk.Image("busybox")
	add(base)
	add(base.Run(bk.Args([]string{"x"}), bk.AddMount("/c", bk.Scratch(), bk.AsPersistentCacheDir("i", bk.CacheMountShared))).Root())
	add(base.File(bk.Mkdir("/d", 0o755).Mkfile("/d/f", 0o600, []byte("x"), bk.WithUser("app")).Copy(bk.Local("c"), "a", "/b")))
	add(bk.Merge([]bk.State{base, bk.Git("https://e.org/r", "v1")}))
	add(bk.Diff(base, bk.HTTP("https://e.org/r")))
	f.Fuzz(func(t *testing.T, b []byte) {
		def, err := llb.Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		one, err := llb.Decode(def, llb.Options{Platform: amd64})
		if err != nil {
			assert.Nil(t, one)
			return
		}
		two, err := llb.Decode(def, llb.Options{Platform: amd64})
		require.NoError(t, err)
		if one == nil {
			require.Nil(t, two)
			return
		}
		require.Equal(t, one.Digest(), two.Digest())
	})
}
