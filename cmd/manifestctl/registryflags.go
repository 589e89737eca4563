package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/credentials"
	"github.com/manifestctl/manifestctl/pkg/mirrors"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// registryFlags are the flags of every command about registries, beside --plain-http and --insecure: who asks, whom it
// believes, and how long it has.
type registryFlags struct {
	authFile      string
	creds         []string
	username      string
	passwordStdin bool

	caFiles []string
	certDir string
	realms  hostsValue
	offline bool
	timeout time.Duration

	confFile string
	confRead sync.Once // registries.conf is read when it is first needed
	conf     *mirrors.Config
	confErr  error

	given []credentials.Given // what creds and username come to
}

// addRegistryFlags adds them all: this is the one place.
func (e *env) addRegistryFlags(f *pflag.FlagSet) {
	g := &e.globals
	hostsVar(f, &g.plainHTTP, "plain-http", "`HOST,...` speak http to these hosts, or to all without a value; loopback needs no flag")
	hostsVar(f, &g.insecure, "insecure", "`HOST,...` do not verify TLS of these hosts, or of any without a value")
	f.BoolFunc("tls-verify", "podman's spelling of the opposite of --insecure", func(s string) error {
		switch s {
		case "true":
			return nil
		case "false":
			g.insecure.All = true
			return nil
		}
		return usagef("--tls-verify %q: want true or false", s)
	})
	f.Lookup("tls-verify").Hidden = true
	f.StringVar(&g.authFile, "authfile", "", "`FILE` of credentials, in the stead of docker's and podman's")
	f.StringArrayVar(&g.creds, "creds", nil, "`[HOST=]USER:PASSWORD` for the registry of this command, or for HOST")
	f.StringVar(&g.username, "username", "", "`USER` for the registry of this command; with --password-stdin")
	f.BoolVar(&g.passwordStdin, "password-stdin", false, "read the password from standard input")
	f.StringArrayVar(&g.caFiles, "ca-file", nil, "`FILE` with certificates of authorities to trust, in PEM, beside the system's")
	f.StringVar(&g.certDir, "cert-dir", "", "`DIR` with *.crt to trust, and *.cert and *.key to show, as in certs.d/HOST")
	f.Var(&g.realms, "token-server", "`HOST,...` servers that may get a registry's credentials for tokens, though they are of another domain")
	f.StringVar(&g.confFile, "registries-conf", "", "`FILE` of mirrors and short names, in the stead of podman's")
	f.BoolVar(&g.offline, "offline", false, "fail instead of asking any registry")
	f.DurationVar(&g.timeout, "timeout", 0, "`DURATION` end the command after so long: 90s, 15m")
}

// prepare turns them into options, before any command runs.
func (e *env) prepare(cmd *cobra.Command, args []string) error {
	g := &e.globals
	if g.timeout < 0 {
		return usagef("--timeout %s: want a time to come", g.timeout)
	}
	if g.timeout > 0 {
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), g.timeout, fmt.Errorf("%w after %s (--timeout)", errTimeout, g.timeout))
		e.atEnd = append(e.atEnd, cancel)
		cmd.SetContext(ctx)
	}
	if cmd.Name() == "login" || cmd.Name() == "logout" {
		return nil // --username and --password-stdin are what it keeps, and it may make the file
	}
	if g.authFile != "" {
		if _, err := os.Stat(g.authFile); err != nil {
			return usagef("--authfile: %w", err)
		}
	}
	for _, text := range g.creds {
		given, err := parseCreds(text)
		if err != nil {
			return err
		}
		g.given = append(g.given, given)
	}
	switch {
	case g.passwordStdin && g.username == "":
		return usagef("--password-stdin needs --username")
	case g.username != "" && !g.passwordStdin:
		return usagef("--username needs --password-stdin").withHint("--creds USER:PASSWORD takes both, where others may see the command line")
	case g.username != "":
		pass, err := readPassword(e.stdin)
		if err != nil {
			return err
		}
		g.given = append(g.given, credentials.Given{User: g.username, Pass: pass})
	}
	return bindGiven(g.given, cmd, args)
}

// parseCreds reads [HOST=]USER[:PASSWORD].
func parseCreds(text string) (credentials.Given, error) {
	var given credentials.Given
	rest := text
	if host, after, ok := strings.Cut(text, "="); ok && isHost(host) {
		given.Host, rest = host, after
	}
	user, pass, ok := strings.Cut(rest, ":")
	if !ok || user == "" {
		return given, usagef("--creds: want USER:PASSWORD or HOST=USER:PASSWORD") // not what was given: it holds a password
	}
	given.User, given.Pass = user, pass
	return given, nil
}

// isHost reports whether s is what docker's rule takes for a host: with a dot or a port, or localhost.
func isHost(s string) bool {
	r, err := ref.Parse(s + "/x")
	return err == nil && r.Kind == ref.Registry && r.Repo == "x" && strings.EqualFold(r.Host, s)
}

// bindGiven finds the registry that credentials without one are for: the only one that the command line names. To send them
// to every registry that a command talks to would tell one registry the password of another.
func bindGiven(given []credentials.Given, cmd *cobra.Command, args []string) error {
	open := slices.IndexFunc(given, func(g credentials.Given) bool { return g.Host == "" })
	if open < 0 {
		return nil
	}
	hosts := namedHosts(cmd, args)
	switch len(hosts) {
	case 0:
		hosts = []string{"docker.io"}
	case 1:
	default:
		return usagef("the credentials are for one registry, and the command names %s", strings.Join(hosts, " and ")).
			withHint("--creds %s=USER:PASSWORD says which", hosts[0])
	}
	for i := range given {
		if given[i].Host == "" {
			given[i].Host = hosts[0]
		}
	}
	return nil
}

// namedHosts are the registries that arguments and names of results spell out, sorted.
func namedHosts(cmd *cobra.Command, args []string) []string {
	texts := slices.Clone(args)
	for _, name := range []string{"tag", "output"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			if s, ok := f.Value.(pflag.SliceValue); ok {
				texts = append(texts, s.GetSlice()...)
			} else {
				texts = append(texts, f.Value.String())
			}
		}
	}
	var hosts []string
	for _, text := range texts {
		for part := range strings.SplitSeq(text, ",") { // type=registry,name=HOST/REPO
			_, value, ok := strings.Cut(part, "name=")
			if !ok {
				value = part
			}
			bare := strings.TrimPrefix(value, "docker://")
			host, _, slash := strings.Cut(bare, "/")
			r, err := ref.Parse(value)
			if err != nil || r.Kind != ref.Registry || !(slash && strings.EqualFold(host, r.Host) || bare != value) {
				continue
			}
			if !slices.Contains(hosts, r.Host) {
				hosts = append(hosts, r.Host)
			}
		}
	}
	slices.Sort(hosts)
	return hosts
}

// maxPassword is the longest password that is read, in bytes: tokens are long.
const maxPassword = 64 << 10

// readPassword reads a password up to the end, without the end of its line.
func readPassword(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPassword+1))
	switch pass := strings.TrimRight(string(b), "\r\n"); {
	case err != nil:
		return "", fmt.Errorf("reading the password: %w", err)
	case len(b) > maxPassword:
		return "", usagef("the password on standard input is longer than %d bytes", maxPassword)
	case pass == "":
		return "", usagef("standard input holds no password")
	default:
		return pass, nil
	}
}

// keychain is where credentials are looked up.
func (e *env) keychain() credentials.Options {
	helpers := func() []string {
		c, err := e.registriesConf()
		if err != nil {
			return nil // where it leads says so
		}
		return c.Helpers()
	}
	return credentials.Options{AuthFile: e.globals.authFile, Given: e.globals.given, Helpers: helpers, Getenv: e.getenv}
}

// registry is what the flags say about registries.
func (e *env) registry() registry.Options {
	g := &e.globals
	return registry.Options{
		PlainHTTP: g.plainHTTP.Hosts,
		Insecure:  g.insecure.Hosts,
		Realms:    g.realms.Hosts,
		Keychain:  credentials.New(e.keychain()),
		UserAgent: "manifestctl/" + version(),
		CAFiles:   g.caFiles,
		CertDir:   g.certDir,
		CertDirs:  registry.DefaultCertDirs(e.getenv),
		Offline:   g.offline,
		Places:    leads{e},
	}
}

// registriesConf is registries.conf. It is read by commands that go to a registry only: a mistake in it is not in the way of
// others.
func (e *env) registriesConf() (*mirrors.Config, error) {
	g := &e.globals
	g.confRead.Do(func() { g.conf, g.confErr = mirrors.Load(mirrors.Options{File: g.confFile, Getenv: e.getenv}) })
	return g.conf, g.confErr
}

// leads is where registries.conf leads.
type leads struct{ e *env }

// Places implements registry.Places.
func (l leads) Places(r ref.Ref, pull bool) ([]registry.Place, error) {
	c, err := l.e.registriesConf()
	if err != nil {
		return nil, err
	}
	return c.Places(r, pull)
}

// readRef is ref.Parse for what is read: short names lead where registries.conf says.
func (e *env) readRef(text string) (ref.Ref, error) {
	c, err := e.registriesConf()
	if err != nil {
		return ref.Ref{}, err
	}
	full, err := c.Expand(text)
	if err != nil {
		return ref.Ref{}, &usageError{text: err.Error(), err: err}
	}
	return ref.Parse(full)
}
