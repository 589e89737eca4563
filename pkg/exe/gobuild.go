package exe

import (
	"bytes"
	"encoding/binary"
	"runtime/debug"
	"strings"
)

const (
	maxModules = 1 << 20 // bytes of text about modules
	maxDeps    = 4096
)

// goMagic begins the block that Go's linker makes; it is aligned to 16 bytes.
var goMagic = []byte("\xff Go buildinf:")

// goBuild looks for the block at the start of a data segment, in at most limit bytes from off.
func goBuild(w *window, off, limit int64) *GoBuild {
	b := w.upTo(off, limit)
	for at := 0; ; {
		i := bytes.Index(b[at:], goMagic)
		if i < 0 {
			return nil
		}
		at += i
		if (off+int64(at))%16 == 0 && len(b)-at >= 32 {
			if g := parseGo(b[at:]); g != nil {
				return g
			}
		}
		at++
	}
}

// parseGo reads a block as Go 1.18 and later write it: both strings stand behind the header. Older programs
// say nothing about their machine there.
func parseGo(b []byte) *GoBuild {
	const inline = 2
	if b[15]&inline == 0 {
		return nil
	}
	b = b[32:]
	version, b, ok := goString(b, 4096)
	if !ok || !strings.HasPrefix(version, "go") && !strings.HasPrefix(version, "devel") {
		return nil
	}
	g := &GoBuild{Version: version}
	mod, _, ok := goString(b, maxModules)
	// 16 bytes that mark the text stand before and after it.
	if !ok || len(mod) < 33 || mod[len(mod)-17] != '\n' {
		return g
	}
	info, err := debug.ParseBuildInfo(mod[16 : len(mod)-16])
	if err != nil {
		return g
	}
	g.Path = info.Path
	g.Main = module(&info.Main)
	for _, d := range info.Deps {
		if len(g.Deps) == maxDeps {
			break
		}
		g.Deps = append(g.Deps, module(d))
	}
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "GO") || s.Key == "CGO_ENABLED" || s.Key == "vcs.revision" || s.Key == "-buildmode" || s.Key == "-tags" {
			if g.Settings == nil {
				g.Settings = map[string]string{}
			}
			g.Settings[s.Key] = s.Value
		}
	}
	return g
}

func module(m *debug.Module) string {
	if m == nil || m.Path == "" {
		return ""
	}
	if m.Replace != nil {
		m = m.Replace
	}
	return m.Path + "@" + m.Version
}

func goString(b []byte, limit uint64) (s string, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > limit || n > uint64(len(b)-k) {
		return "", nil, false
	}
	return string(b[k : k+int(n)]), b[k+int(n):], true
}
