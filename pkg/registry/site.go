package registry

import (
	"net/netip"
	"strings"
)

// Threat: a registry names the server that gets the user's password (the realm
// of its 401). A registry that was broken into, or a proxy before it, could name
// any. The password goes to the registry's own host, or over TLS to a host of
// the same site; anything else must be allowed by name.

// sameSite reports whether two host names belong to one owner: they are equal or
// share their registrable domain. Without the full list of public suffixes this
// errs towards no: see sharedSuffixes.
func sameSite(a, b string) bool {
	a, b = strings.ToLower(strings.TrimSuffix(a, ".")), strings.ToLower(strings.TrimSuffix(b, "."))
	if a == b {
		return a != ""
	}
	sa := site(a)
	return sa != "" && sa == site(b)
}

// site is the registrable domain of a host name, or "" when it has none.
func site(host string) string {
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ""
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" {
			return ""
		}
	}
	n := len(labels)
	for size := 2; size <= min(4, n); size++ {
		if sharedSuffixes[strings.Join(labels[n-size:], ".")] {
			return ""
		}
	}
	keep := 2
	if n >= 2 && len(labels[n-1]) == 2 && secondLevel[labels[n-2]] {
		keep = 3 // registry.co.uk
	}
	if n < keep {
		return ""
	}
	return strings.Join(labels[n-keep:], ".")
}

// secondLevel are the labels under which countries register names.
var secondLevel = set("ac co com edu gen go gob gouv gov govt gv id ind info mil muni ne net nhs nic nom or org plc police res sch web ltd firm")

// sharedSuffixes are domains whose subdomains belong to different customers, as
// far as registries or token servers are likely there. No two hosts below one
// count as the same site.
var sharedSuffixes = set(`
	amazonaws.com elasticbeanstalk.com cloudfront.net awsapprunner.com
	azurecr.io azurewebsites.net azurecontainerapps.io azurefd.net cloudapp.net cloudapp.azure.com windows.net
	appspot.com run.app web.app cloudfunctions.net firebaseapp.com googleusercontent.com
	github.io gitlab.io githubusercontent.com githubpreview.dev app.github.dev
	herokuapp.com herokussl.com fly.dev onrender.com vercel.app netlify.app pages.dev workers.dev r2.dev
	ngrok.io ngrok.app ngrok-free.app ngrok.dev loca.lt trycloudflare.com ts.net
	digitaloceanspaces.com ondigitalocean.app scw.cloud ovh.net cloud.ovh.net on-rancher.cloud
	jfrog.io cloudsmith.io icr.io nip.io sslip.io xip.io localtest.me
	dyndns.org duckdns.org no-ip.org ddns.net dynv6.net myfritz.net synology.me
	openshiftapps.com cloudapps.digital railway.app deno.dev glitch.me repl.co codesandbox.io
`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}
