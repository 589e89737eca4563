package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/manifestctl/manifestctl/pkg/credentials"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

func newLogin(e *env) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login [flags] [REGISTRY]",
		Short: "Check credentials for a registry and keep them",
		Long: "login asks REGISTRY (HOST[:PORT], docker.io without one) whether a user and password are good, and keeps them: in the\n" +
			"helper that the file names (credHelpers, credsStore), else in the file itself, in plain text. The file is --authfile,\n" +
			"$REGISTRY_AUTH_FILE, or docker's ($DOCKER_CONFIG/config.json, ~/.docker/config.json); docker and podman read it too.\n\n" +
			"With REGISTRY/NAMESPACE they are kept for a part of the registry. In scripts, give --username and --password-stdin.",
		Example: "  echo \"$TOKEN\" | manifestctl login --username ci --password-stdin registry.example\n" +
			"  manifestctl login --get-login registry.example",
		Args: positional(0, 1, "at most one REGISTRY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "docker.io"
			if len(args) == 1 {
				name = args[0]
			}
			if o.get {
				user, _, err := credentials.New(e.keychain()).Lookup(cmd.Context(), name)
				if err != nil {
					return err
				}
				return e.println(user)
			}
			return e.login(cmd.Context(), name, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&e.globals.username, "username", "u", "", "`NAME` of the user")
	f.StringVarP(&o.password, "password", "p", "", "`PASSWORD` of the user, where others may see it; --password-stdin hides it")
	f.BoolVar(&o.get, "get-login", false, "print who is logged in, and change nothing")
	return cmd
}

type loginOptions struct {
	password string
	get      bool
}

// login checks and keeps credentials.
func (e *env) login(ctx context.Context, name string, o loginOptions) error {
	name = strings.TrimRight(strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://"), "/")
	if name == "index.docker.io" || name == "index.docker.io/v1" {
		name = "docker.io"
	}
	user, pass, err := e.userAndPassword(name, o)
	if err != nil {
		return err
	}
	host, _, _ := strings.Cut(name, "/")
	ro := e.registry()
	ro.Keychain = credentials.New(credentials.Options{Given: []credentials.Given{{Host: host, User: user, Pass: pass}}, Getenv: func(string) string { return "" }})
	client := registry.New(ro)
	defer client.Close()
	asked, err := client.Ping(ctx, host)
	if err != nil {
		return err
	}
	ko := e.keychain()
	ko.MayMiss = true
	k := credentials.New(ko)
	kept, err := k.Login(ctx, name, user, pass)
	if err != nil {
		return err
	}
	if !asked {
		e.note("note: %s asks for no credentials: whether these are good is not known", host)
	}
	if kept.Helper != "" {
		e.note("logged in to %s as %s; kept by %s", name, user, kept.Helper)
	} else {
		e.note("logged in to %s as %s; kept in %s", name, user, kept.File)
		e.note("warning: the password stands there in plain text; a helper (\"credsStore\" in that file) would protect it")
	}
	if _, where, err := k.Lookup(ctx, name); err == nil && kept.Helper == "" && where != kept.File {
		e.note("warning: what stands in %s counts before it", where)
	}
	return nil
}

// userAndPassword takes them from the flags, else asks for them.
func (e *env) userAndPassword(name string, o loginOptions) (user, pass string, err error) {
	g := &e.globals
	if len(g.creds) > 0 {
		given, err := parseCreds(g.creds[0])
		return given.User, given.Pass, err
	}
	user = g.username
	switch {
	case o.password != "" && g.passwordStdin:
		return "", "", usagef("--password and --password-stdin cannot both be")
	case o.password != "" && user == "", g.passwordStdin && user == "":
		return "", "", usagef("a password needs --username")
	case o.password != "":
		e.note("warning: others on this machine can see the password on the command line: --password-stdin hides it")
		return user, o.password, nil
	case g.passwordStdin:
		pass, err = readPassword(e.stdin)
		return user, pass, err
	}
	in, ok := e.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", "", usagef("no password for %s", name).withHint("give --username USER and --password-stdin")
	}
	if user == "" {
		fmt.Fprintf(e.stderr, "User for %s: ", escape(name))
		if user, err = readLine(in); err != nil {
			return "", "", err
		}
	}
	fmt.Fprintf(e.stderr, "Password: ")
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(e.stderr)
	if err != nil {
		return "", "", fmt.Errorf("reading the password: %w", err)
	}
	if user == "" || len(b) == 0 {
		return "", "", usagef("neither user nor password may be empty")
	}
	return user, string(b), nil
}

// readLine reads a line byte by byte: what follows is for others.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < 1024; {
		n, err := r.Read(b)
		if n == 1 && b[0] == '\n' || errors.Is(err, io.EOF) {
			return strings.TrimSpace(string(line)), nil
		}
		if err != nil {
			return "", fmt.Errorf("reading the user: %w", err)
		}
		line = append(line, b[:n]...)
	}
	return "", usagef("the user is longer than 1024 bytes")
}

func newLogout(e *env) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "logout [flags] [REGISTRY]",
		Short: "Remove the credentials that login keeps",
		Long: "logout removes the credentials for REGISTRY (docker.io without one) from the file where login keeps them, and from the\n" +
			"helper that the file names. What other files hold stays; the command says where.",
		Example: "  manifestctl logout registry.example\n" +
			"  manifestctl logout --all",
		Args: positional(0, 1, "at most one REGISTRY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ko := e.keychain()
			ko.MayMiss = true
			k := credentials.New(ko)
			if all {
				if len(args) > 0 {
					return usagef("--all and a REGISTRY cannot both be")
				}
				names, file, err := k.LogoutAll(cmd.Context())
				for _, n := range names {
					e.note("logged out of %s", n)
				}
				if err == nil && len(names) == 0 {
					e.note("no logins in %s", file)
				}
				return err
			}
			name := "docker.io"
			if len(args) == 1 {
				name = args[0]
			}
			file, err := k.Logout(cmd.Context(), name)
			user, where, elsewhere := k.Lookup(cmd.Context(), name)
			if err == nil {
				e.note("logged out of %s; removed from %s", name, file)
			}
			if elsewhere == nil {
				e.note("warning: %s is still logged in to %s by %s", user, name, where)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "all registries that the file has credentials for")
	return cmd
}
