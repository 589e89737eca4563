package verify_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// alpine is the likeness of a small base image: busybox, a loader and a library.
func alpine(arch string) []testimage.Entry {
	cpu := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
	ld := "lib/ld-musl-" + cpu + ".so.1"
	out := []testimage.Entry{
		elf(ld, testexe.ELF{Arch: arch, Type: 3, Soname: "libc.musl-" + cpu + ".so.1"}),
		elf("bin/busybox", testexe.ELF{Arch: arch, Type: 3, Interp: "/" + ld, Needed: []string{"libc.musl-" + cpu + ".so.1"}}),
		testimage.Symlink("lib/libc.musl-"+cpu+".so.1", "ld-musl-"+cpu+".so.1"),
	}
	for _, name := range []string{"sh", "ls", "cat", "env"} {
		out = append(out, testimage.Symlink("bin/"+name, "busybox"))
	}
	for _, name := range []string{"sbin/apk", "sbin/ldconfig", "usr/bin/getent", "usr/bin/iconv", "usr/bin/scanelf", "usr/bin/ssl_client"} {
		out = append(out, elf(name, testexe.ELF{Arch: arch, Type: 3, Interp: "/" + ld}))
	}
	return out
}

// TestPublished rebuilds the images behind the six reports of arm64 entries that held amd64 programs: each is found, and the
// mended image is silent. What the reports say of their causes stands at each.
func TestPublished(t *testing.T) {
	type step struct {
		by      string
		entries []testimage.Entry
	}
	for name, tc := range map[string]struct {
		config ocispec.ImageConfig
		image  func(arch string) []step // as it was, arch being what the mistake chose
		rule   verify.Rule
		text   string
	}{
		// The final stage was FROM --platform=$BUILDPLATFORM: both entries have the very same layers.
		"lightninglabs/loop#1211": {
			entry("loopd"),
			func(arch string) []step {
				return []step{
					{"ADD alpine-minirootfs.tar.gz /", alpine(arch)},
					{"COPY /go/bin/loopd /bin/ # buildkit", []testimage.Entry{program("bin/loopd", arch)}},
					{"COPY /go/bin/loop /bin/ # buildkit", []testimage.Entry{program("bin/loop", arch)}},
				}
			},
			verify.RuleBase, "all 7 programs of a layer are of another platform: /usr/bin/getent is x86-64, ...",
		},
		// The Dockerfile said GOARCH=amd64: a right base with a wrong program.
		"artyomsv/marauder#74": {
			entry("/usr/local/bin/marauder"),
			func(arch string) []step {
				return []step{
					{"ADD alpine-minirootfs.tar.gz /", alpine("arm64")},
					{"COPY /out/marauder /usr/local/bin/marauder # buildkit", []testimage.Entry{program("usr/local/bin/marauder", arch)}},
				}
			},
			verify.RuleMachine, "linux/arm64: /usr/local/bin/marauder is x86-64 (from layer 2, COPY /out/marauder /usr/local/bin/marauder)",
		},
		// One prebuilt program was copied for every platform; the smoke test in a RUN passed, because binfmt ran it.
		"lmorchard/feedspool-go#46": {
			ocispec.ImageConfig{Entrypoint: []string{"/usr/local/bin/docker-entrypoint.sh"}, Cmd: []string{"feedspool", "serve"}},
			func(arch string) []step {
				return []step{
					{"ADD alpine-minirootfs.tar.gz /", alpine("arm64")},
					{"COPY feedspool /usr/local/bin/feedspool # buildkit", []testimage.Entry{
						program("usr/local/bin/feedspool", arch), testimage.Exec("usr/local/bin/docker-entrypoint.sh", "#!/bin/sh\nexec \"$@\"\n"),
					}},
					{"RUN /bin/sh -c feedspool version # buildkit", []testimage.Entry{testimage.Dir("data")}},
				}
			},
			verify.RuleMachine, "linux/arm64: /usr/local/bin/feedspool is x86-64 (from layer 2, COPY feedspool /usr/local/bin/feedspool)",
		},
		// One of several programs came from the directory of the other machine.
		"projectcalico/calico#13203": {
			entry("/usr/bin/calico-node"),
			func(arch string) []step {
				return []step{
					{"ADD ubi-minimal /", alpine("arm64")},
					{"COPY dist/bin/ /usr/bin/ # buildkit", []testimage.Entry{program("usr/bin/calico-node", "arm64"), program("usr/bin/mountns", arch), program("usr/bin/bpftool", "arm64")}},
				}
			},
			verify.RuleMachine, "linux/arm64: /usr/bin/mountns is x86-64 (from layer 2, COPY dist/bin/ /usr/bin/)",
		},
		// Nothing but the program: there is no base that would be right.
		"fabriziosalmi/zion#279": {
			entry("/zion"),
			func(arch string) []step {
				return []step{{"COPY target/release/zion /zion # buildkit", []testimage.Entry{program("zion", arch)}}}
			},
			verify.RuleMachine, "linux/arm64: /zion is x86-64 (from layer 1, COPY target/release/zion /zion)",
		},
		// Tools that the application calls were downloaded for the machine of the builder.
		"CodesWhat/drydock#1024": {
			ocispec.ImageConfig{Entrypoint: []string{"/usr/bin/entrypoint.sh"}, Cmd: []string{"node", "dist/index.js"}},
			func(arch string) []step {
				return []step{
					{"ADD alpine-minirootfs.tar.gz /", append(alpine("arm64"), program("usr/local/bin/node", "arm64"))},
					{"RUN /bin/sh -c wget cosign trivy # buildkit", []testimage.Entry{program("usr/local/bin/cosign", arch), program("usr/local/bin/trivy", arch)}},
					{"COPY entrypoint.sh /usr/bin/ # buildkit", []testimage.Entry{testimage.Exec("usr/bin/entrypoint.sh", "#!/bin/sh\nexec \"$@\"\n")}},
				}
			},
			verify.RuleMachine, "linux/arm64: /usr/local/bin/cosign is x86-64 (from layer 2, RUN wget cosign trivy)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			judge := func(arch string) []verify.Finding {
				in := input("linux/arm64", tc.config)
				for _, s := range tc.image(arch) {
					in.Layers = append(in.Layers, read(t, s.entries...))
					in.Config.History = append(in.Config.History, ocispec.History{CreatedBy: s.by})
				}
				list, err := verify.Judge(in)
				require.NoError(t, err)
				return list
			}
			list := judge("amd64")
			require.NotEmpty(t, list)
			var texts []string
			for _, f := range list {
				texts = append(texts, f.Rule.ID+": "+f.String(), f.Rule.ID+": "+f.Text)
			}
			assert.Contains(t, texts, tc.rule.ID+": "+tc.text)
			assert.Positive(t, verify.Count(list, verify.Error))
			assert.Empty(t, judge("arm64"), "the mended image")
		})
	}
}
