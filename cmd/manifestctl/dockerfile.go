package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/credentials"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// dockerfileFlags are the flags of build that only Dockerfiles and definitions know.
type dockerfileFlags struct {
	target        string
	noCacheFilter []string
	hosts         []string
	shmSize       string
	ulimits       []string
	network       string
	ssh           []string
	check         bool
	call          string
	llb           string
	printLLB      string
	deviceDirs    []string

	set *pflag.FlagSet
}

func (d *dockerfileFlags) add(f *pflag.FlagSet) {
	d.set = f
	f.StringVar(&d.target, "target", "", "`STAGE` build this stage of the Dockerfile")
	f.StringSliceVar(&d.noCacheFilter, "no-cache-filter", nil, "`STAGE,...` run every step of these stages; may be repeated")
	f.StringArrayVar(&d.hosts, "add-host", nil, "`NAME:IP` a further line of /etc/hosts in RUN steps; may be repeated")
	f.StringVar(&d.shmSize, "shm-size", "", "`SIZE` of /dev/shm in RUN steps: bytes, or with k, m, g")
	f.StringArrayVar(&d.ulimits, "ulimit", nil, "`NAME=SOFT[:HARD]` a limit of RUN steps; may be repeated")
	f.StringVar(&d.network, "network", "default", "`MODE` network of RUN steps that name none: default, host or none")
	f.StringArrayVar(&d.ssh, "ssh", nil, "`default|ID[=SOCKET|KEY,...]` an ssh agent or keys for the steps that mount it; may be repeated")
	f.StringArrayVar(&d.deviceDirs, "cdi-spec-dir", nil, "`DIR` of files that describe devices for RUN --device, instead of /etc/cdi and /var/run/cdi; may be repeated")
	f.BoolVar(&d.check, "check", false, "check the Dockerfile, and build nothing; short for --call=check")
	f.StringVar(&d.call, "call", "build", "`METHOD` what to do with the Dockerfile: build, check, outline or targets[,format=json]")
	f.StringVar(&d.llb, "llb", "", "`FILE` build a definition of LLB instead of a file of the context; - is standard input")
	f.StringVar(&d.printLLB, "print-llb", "", "`FORM` print the definition that the Dockerfile becomes, and build nothing: json (lines), or raw for one platform")
	f.Lookup("print-llb").NoOptDefVal = "json"
}

// names are the flags that a spec does not know.
var dockerfileOnly = []string{
	"target", "no-cache-filter", "add-host", "shm-size", "ulimit", "network", "ssh", "check", "call", "print-llb", "cdi-spec-dir",
}

// refuse reports a flag that a spec does not know.
func (d *dockerfileFlags) refuse(file string) error {
	for _, name := range dockerfileOnly {
		if d.set.Changed(name) {
			return usagef("--%s is for Dockerfiles, and %q is a spec", name, file)
		}
	}
	return nil
}

// request fills in what the flags say.
func (d *dockerfileFlags) request(e *env, out *build.Dockerfile) (err error) {
	if _, _, err := d.method(); err != nil {
		return err
	}
	if d.printLLB != "" && d.printLLB != "json" && d.printLLB != "raw" {
		return usagef("--print-llb=%s: want json or raw", d.printLLB)
	}
	out.Target, out.NoCacheFilter = d.target, d.noCacheFilter
	for _, h := range d.hosts {
		host, err := parseHost(h)
		if err != nil {
			return err
		}
		out.Hosts = append(out.Hosts, host)
	}
	if out.ShmSize, err = parseBytes("shm-size", d.shmSize); err != nil {
		return err
	}
	out.Ulimits = d.ulimits
	for _, u := range d.ulimits {
		if err := checkUlimit(u); err != nil {
			return err
		}
	}
	switch d.network {
	case "", "default":
	case "none":
		out.Network = "none"
	case "host":
		out.Network, out.Allow.NetworkHost = "host", true
	default:
		return usagef("--network %q: want default, host or none", d.network).withHint("other networks are the engine's, and there is none")
	}
	if out.SSH, err = parseSSH(e, d.ssh); err != nil {
		return err
	}
	out.Proxy = proxiesOfCaller(e)
	return nil
}

// proxiesOfCaller are the proxies that the environment names. They are no arguments of the build.
func proxiesOfCaller(e *env) map[string]string {
	out := map[string]string{}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		for _, n := range []string{strings.ToLower(name), name} {
			if v := e.getenv(n); v != "" {
				out[name] = v
			}
		}
	}
	return out
}

// proxyArgs adds the proxies of docker's config.json to the arguments of a build, as docker and buildx do. One that is given in
// either case stays alone: of two that differ the frontend takes any. A file that cannot be read is a warning, as there.
func proxyArgs(e *env, args map[string]string) map[string]string {
	proxies, err := credentials.Proxies(e.getenv("DOCKER_HOST"), e.getenv)
	if err != nil {
		e.note("warning: no proxies: %v", err)
	}
	if len(proxies) == 0 {
		return args
	}
	given := map[string]bool{}
	for name := range args {
		given[strings.ToUpper(name)] = true
	}
	out := map[string]string{}
	maps.Copy(out, args)
	for name, value := range proxies {
		if !given[strings.ToUpper(name)] {
			out[name] = value
		}
	}
	return out
}

// splitAllows tells buildx's entitlements from the contents that verify is told of, which have a platform.
func splitAllows(values []string) (contents, entitlements []string) {
	for _, v := range values {
		name, _, rule := strings.Cut(v, "=")
		if !rule || name == "device" {
			entitlements = append(entitlements, v)
			continue
		}
		contents = append(contents, v)
	}
	return contents, entitlements
}

// entitle reads entitlements.
func entitle(out *build.Entitlements, values []string) error {
	for _, v := range values {
		switch name, device, named := strings.Cut(v, "="); name {
		case "network.host":
			out.NetworkHost = true
		case "security.insecure":
			out.SecurityInsecure = true
		case "device":
			switch {
			case !named:
				out.Device = true
			case device == "" || strings.Contains(device, ","):
				return usagef("--allow %q: want device=NAME", v)
			default:
				out.Devices = append(out.Devices, device)
			}
		default:
			return usagef("--allow %q: want network.host, security.insecure, device[=NAME] or PATH-GLOB=PLATFORM", v)
		}
	}
	return nil
}

// parseHost turns NAME:IP and NAME=IP into the frontend's NAME=IP.
func parseHost(s string) (string, error) {
	name, ip, ok := strings.Cut(s, "=")
	if !ok {
		name, ip, ok = strings.Cut(s, ":")
	}
	ip = strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
	switch {
	case ip == "host-gateway":
		return "", usagef("--add-host %q: host-gateway is an address of docker's engine, and there is none", s).
			withHint("steps use this host's network: its own address is 127.0.0.1")
	case !ok || name == "" || net.ParseIP(ip) == nil:
		return "", usagef("--add-host %q: want NAME:IP", s)
	}
	return name + "=" + ip, nil
}

// parseBytes reads a size as docker does: a number with k, m, g or t for powers of 1024.
func parseBytes(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), "b"), "i")
	shift := 0
	if len(text) > 1 {
		if i := strings.IndexByte("kmgt", text[len(text)-1]); i >= 0 {
			text, shift = text[:len(text)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || n < 0 || n > float64(int64(1)<<62>>shift) {
		return 0, usagef("--%s %q: want a number of bytes, or one with k, m, g or t", flag, s)
	}
	return int64(n * float64(int64(1)<<shift)), nil
}

// checkUlimit checks NAME=SOFT[:HARD]; the frontend reads it.
func checkUlimit(s string) error {
	name, limits, ok := strings.Cut(s, "=")
	soft, hard, both := strings.Cut(limits, ":")
	bad := func(n string) bool { _, err := strconv.ParseInt(n, 10, 64); return err != nil }
	if !ok || name == "" || bad(soft) || both && bad(hard) {
		return usagef("--ulimit %q: want NAME=SOFT[:HARD]", s)
	}
	return nil
}

// parseSSH reads --ssh default|ID[=SOCKET|KEY[,KEY...]].
func parseSSH(e *env, values []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, v := range values {
		id, paths, ok := strings.Cut(v, "=")
		if id == "" {
			return nil, usagef("--ssh %q: want default or ID[=SOCKET|KEY,...]", v)
		}
		if _, twice := out[id]; twice {
			return nil, usagef("--ssh: id %q is given twice", id)
		}
		if ok && paths != "" {
			out[id] = strings.Split(paths, ",")
			continue
		}
		socket := e.getenv("SSH_AUTH_SOCK")
		if socket == "" {
			return nil, usagef("--ssh %s: SSH_AUTH_SOCK is not set", v).withHint("start an agent, or name a socket or keys: --ssh %s=PATH", id)
		}
		out[id] = []string{socket}
	}
	return out, nil
}

// call is the method of --call and --check, and its format.
func (d *dockerfileFlags) method() (name string, json bool, err error) {
	words := strings.Split(d.call, ",")
	name = words[0]
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch {
		case key == "format" && value == "json":
			json = true
		case key == "format" && value == "txt":
		case key == "ignorestatus":
			return "", false, usagef("--call %q: ignorestatus is not supported", d.call)
		default:
			return "", false, usagef("--call %q: unknown option %q", d.call, w)
		}
	}
	if d.check {
		if d.set.Changed("call") && name != "check" && name != "lint" {
			return "", false, usagef("--check and --call=%s exclude each other", name)
		}
		name = "check"
	}
	switch name {
	case "", "build":
		return "", false, nil
	case "check", "lint":
		return "check", json, nil
	case "outline", "targets":
		return name, json, nil
	}
	return "", false, usagef("--call %q: want build, check, outline or targets", d.call)
}

// answer prints what was asked about a Dockerfile instead of building it; false when nothing was.
func (d *dockerfileFlags) answer(ctx context.Context, e *env, st *store.Store, req build.Request, o build.Options) (bool, error) {
	method, asJSON, err := d.method()
	if err != nil {
		return true, err
	}
	if d.printLLB != "" {
		return true, build.PrintLLB(ctx, st, req, o, d.printLLB == "raw", e.stdout)
	}
	if method == "" || req.Dockerfile == nil {
		return false, nil
	}
	if req.LLB != nil {
		return true, usagef("--call=%s is for Dockerfiles, not for --llb", method)
	}
	answer, err := build.Describe(ctx, st, req, o, method)
	if err != nil {
		return true, err
	}
	switch {
	case asJSON:
		err = e.println(strings.TrimSuffix(string(answer.JSON), "\n"))
	case method == "check" && answer.Findings == 0:
		err = e.println("Check complete, no warnings found.")
	case method == "check":
		noun := "warnings have"
		if answer.Findings == 1 {
			noun = "warning has"
		}
		err = e.println(fmt.Sprintf("Check complete, %d %s been found!\n%s", answer.Findings, noun, strings.TrimSuffix(answer.Text, "\n")))
	default:
		err = e.println(strings.TrimSuffix(answer.Text, "\n"))
	}
	if err == nil && answer.Findings > 0 {
		err = fmt.Errorf("%w: %d in the Dockerfile", errFindings, answer.Findings)
	}
	return true, err
}

// platformOfDocker is DOCKER_DEFAULT_PLATFORM, for Dockerfiles without --platform.
func platformOfDocker(e *env) []string {
	if v := e.getenv("DOCKER_DEFAULT_PLATFORM"); v != "" {
		return []string{v}
	}
	return nil
}

// isSpec reports whether a file's name is a spec's; anything else is a Dockerfile.
func isSpec(file string) bool {
	return slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(file))
}
