package spec

import "github.com/manifestctl/manifestctl/pkg/graph"

// config makes the target's config from the document's.
func (t *targetPlan) config() graph.ConfigPatch {
	c := &chain{targetPlan: t, platform: t.platform, vars: t.vars}
	in := &t.doc.config
	out := graph.ConfigPatch{ExposedPorts: in.ports}
	if in.entrypoint != nil {
		out.Entrypoint = texts(in.entrypoint)
	}
	if in.cmd != nil {
		out.Cmd = texts(in.cmd)
	}
	for _, e := range in.env {
		if v, ok := c.expand(e.value); ok {
			out.Env = append(out.Env, e.key.text+"="+v)
		}
	}
	for _, l := range in.labels {
		if v, ok := c.expand(l.value); ok {
			if out.Labels == nil {
				out.Labels = map[string]string{}
			}
			out.Labels[l.key.text] = v
		}
	}
	if in.workdir != nil {
		if p, ok := c.imagePath(in.workdir, "workdir", true); ok {
			out.WorkingDir = &p
		}
	}
	if in.volumes != nil {
		out.Volumes = []string{}
		for _, v := range in.volumes {
			if p, ok := c.imagePath(v, "a volume", false); ok {
				out.Volumes = append(out.Volumes, p)
			}
		}
	}
	out.User, out.StopSignal, out.Author = pointer(in.user), pointer(in.stopSignal), pointer(in.author)
	return out
}

func pointer(t text) *string {
	if !t.set() {
		return nil
	}
	s := t.s
	return &s
}
