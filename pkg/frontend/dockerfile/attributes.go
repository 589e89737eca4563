package dockerfile

import (
	"maps"
	"strconv"
	"strings"
)

// attributes are the options in the frontend's own words (dockerui/config.go).
func attributes(o Options, in *input) map[string]string {
	a := maps.Clone(in.attrs)
	set := func(key, value string) {
		if value != "" {
			a[key] = value
		}
	}
	names := make([]string, len(o.Platforms))
	for i, p := range o.Platforms {
		names[i] = p.String()
	}
	set("platform", strings.Join(names, ","))
	set("target", o.Target)
	for k, v := range o.Args {
		a["build-arg:"+k] = v
	}
	for k, v := range o.Labels {
		a["label:"+k] = v
	}
	if o.NoCache {
		a["no-cache"] = ""
	} else if len(o.NoCacheFilter) > 0 {
		a["no-cache"] = strings.Join(o.NoCacheFilter, ",")
	}
	if o.Pull {
		a["image-resolve-mode"] = "pull"
	}
	set("add-hosts", strings.Join(o.Hosts, ","))
	if o.ShmSize > 0 {
		a["shm-size"] = strconv.FormatInt(o.ShmSize, 10)
	}
	set("ulimit", strings.Join(o.Ulimits, ","))
	if o.Network != "default" {
		set("force-network-mode", o.Network)
	}
	set("hostname", o.Hostname)
	return a
}
