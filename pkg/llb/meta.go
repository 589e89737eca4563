package llb

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// customName is the key of an operation's description that holds its name.
const customName = "llb.customname"

// meta is what people see of op.
func (d *decoder) meta(op *operation) graph.Meta {
	m := graph.Meta{Excerpt: d.excerpt(op)}
	if m.Excerpt != nil {
		m.Source = fmt.Sprintf("%s:%d", m.Excerpt.File, m.Excerpt.From)
	} else {
		m.Source = d.file() + " " + op.digest.String()[:min(19, len(op.digest))]
	}
	if op.meta != nil {
		m.Name = op.meta.Description[customName]
		m.NoCache = op.meta.IgnoreCache
	}
	if m.Name == "" {
		m.Name = describe(op)
	}
	m.Name = strings.ToValidUTF8(m.Name, "\uFFFD")
	return m
}

// excerpt is where op came from; nil when the definition does not say.
func (d *decoder) excerpt(op *operation) *graph.Excerpt {
	src := d.def.GetSource()
	if src == nil {
		return nil
	}
	for _, l := range src.Locations[string(op.digest)].GetLocations() {
		if l == nil || l.SourceIndex < 0 || int(l.SourceIndex) >= len(src.Infos) {
			continue
		}
		info := src.Infos[l.SourceIndex]
		for _, r := range l.Ranges {
			if r == nil || r.Start == nil || r.Start.Line <= 0 {
				continue
			}
			e := &graph.Excerpt{File: info.GetFilename(), Text: info.GetData(), From: int(r.Start.Line), To: int(r.Start.Line)}
			if r.End != nil && r.End.Line > r.Start.Line {
				e.To = int(r.End.Line)
			}
			return e
		}
	}
	return nil
}

// describe names an operation whose producer gave it no name, in BuildKit's words.
func describe(op *operation) string {
	switch o := op.Op.Op.(type) {
	case *pb.Op_Source:
		return o.Source.GetIdentifier()
	case *pb.Op_Exec:
		return strings.Join(o.Exec.GetMeta().GetArgs(), " ")
	case *pb.Op_File:
		names := make([]string, 0, len(o.File.GetActions()))
		for _, a := range o.File.GetActions() {
			names = append(names, describeAction(a))
		}
		return strings.Join(names, ", ")
	case *pb.Op_Merge:
		return "merge"
	case *pb.Op_Diff:
		return "diff"
	}
	return "operation"
}

func describeAction(a *pb.FileAction) string {
	switch o := a.GetAction().(type) {
	case *pb.FileAction_Copy:
		return fmt.Sprintf("copy %s %s", o.Copy.GetSrc(), o.Copy.GetDest())
	case *pb.FileAction_Mkfile:
		return "mkfile " + o.Mkfile.GetPath()
	case *pb.FileAction_Mkdir:
		return "mkdir " + o.Mkdir.GetPath()
	case *pb.FileAction_Symlink:
		return fmt.Sprintf("symlink %s -> %s", o.Symlink.GetNewpath(), o.Symlink.GetOldpath())
	case *pb.FileAction_Rm:
		return "rm " + o.Rm.GetPath()
	}
	return "action"
}
