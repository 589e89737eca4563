package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/gofrs/flock"
)

// Kept says where a login was put.
type Kept struct {
	File   string // the file that holds it, or that names the helper
	Helper string // the helper's program; "": the secret stands in the file, in plain text
}

// target is the file that logins are put in: the one that was named, else docker's.
func (k *Keychain) target() (path string, docker bool, err error) {
	env := k.o.Getenv
	switch {
	case k.o.AuthFile != "":
		path = k.o.AuthFile
	case env("REGISTRY_AUTH_FILE") != "":
		path = env("REGISTRY_AUTH_FILE")
	case env("DOCKER_CONFIG") != "":
		path, docker = filepath.Join(env("DOCKER_CONFIG"), "config.json"), true
	case homeDir(env) != "":
		path, docker = filepath.Join(homeDir(env), ".docker", "config.json"), true
	default:
		return "", false, fmt.Errorf("%w: no file to keep them in: HOME is not set", ErrInvalid)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // what it points at is replaced, not the link
	}
	return path, docker, nil
}

// reName is what a login may be for: a registry, or a part of its namespace.
var reName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*$`)
})

// checkName brings the name of a registry or namespace into its normal form.
func checkName(name string) (string, error) {
	n := normalise(name)
	if !reName().MatchString(n) {
		return "", fmt.Errorf("%w: %q is not HOST[:PORT] or HOST[:PORT]/NAMESPACE", ErrInvalid, name)
	}
	return n, nil
}

// Login keeps a user and password for a registry, or a part of its namespace: in the helper that the file names for it, else
// in the file.
func (k *Keychain) Login(ctx context.Context, name, user, pass string) (Kept, error) {
	name, err := checkName(name)
	if err != nil {
		return Kept{}, err
	}
	if user == "" || strings.ContainsAny(user, ":\x00\n") && user != identityUser {
		return Kept{}, fmt.Errorf("%w: a user must not be empty, nor hold a colon or a line's end", ErrInvalid)
	}
	var kept Kept
	err = k.edit(ctx, func(path string, docker bool, d *document) (bool, error) {
		kept.File = path
		helper := d.keeper(name)
		entry := json.RawMessage("{}")
		if helper != "" {
			kept.Helper = program(helper)
			in, err := json.Marshal(helperAnswer{ServerURL: serverName(name), Username: user, Secret: pass})
			if err != nil {
				return false, err
			}
			if _, err := k.run(ctx, helper, "store", string(in)); err != nil {
				return false, err
			}
			k.forget(helper + "\n" + serverName(name))
		} else if entry, err = json.Marshal(map[string]string{"auth": encodeAuth(user, pass)}); err != nil {
			return false, err
		}
		for _, key := range d.names(name) {
			delete(d.auths, key) // another spelling would count beside it
		}
		key := name
		if docker {
			key = serverName(name)
		}
		if d.auths == nil {
			d.auths = map[string]json.RawMessage{}
		}
		d.auths[key] = entry
		return true, nil
	})
	return kept, err
}

// keeper is the helper that keeps the secrets of name; "": none does.
func (d *document) keeper(name string) string {
	host, _, _ := strings.Cut(name, "/")
	for _, n := range []string{name, host} {
		if h := d.helper(n); h != "" {
			return h
		}
	}
	return d.CredsStore
}

// Logout removes what the file or its helper keep for a registry or namespace. It is an ErrNotFound when that is nothing;
// credentials elsewhere stay: Lookup finds them.
func (k *Keychain) Logout(ctx context.Context, name string) (file string, err error) {
	if name, err = checkName(name); err != nil {
		return "", err
	}
	err = k.edit(ctx, func(path string, _ bool, d *document) (bool, error) {
		file = path
		gone, err := k.remove(ctx, d, name)
		if err == nil && !gone {
			err = fmt.Errorf("%w for %s in %s", ErrNotFound, name, path)
		}
		return gone, err
	})
	return file, err
}

// LogoutAll removes all logins that the file and its helpers keep, and returns their names, sorted.
func (k *Keychain) LogoutAll(ctx context.Context) (names []string, file string, err error) {
	err = k.edit(ctx, func(path string, _ bool, d *document) (bool, error) {
		file = path
		all := map[string]bool{}
		for key := range d.auths {
			all[normalise(key)] = true
		}
		for key := range d.helpers {
			all[normalise(key)] = true
		}
		var errs error
		for _, name := range slices.Sorted(maps.Keys(all)) {
			gone, err := k.remove(ctx, d, name)
			errs = errors.Join(errs, err)
			if gone && err == nil {
				names = append(names, name)
			}
		}
		return len(names) > 0, errs
	})
	return names, file, err
}

// remove takes name out of the document and of the helper that keeps it.
func (k *Keychain) remove(ctx context.Context, d *document, name string) (gone bool, err error) {
	if helper := d.keeper(name); helper != "" {
		kept, err := k.get(ctx, helper, serverName(name))
		if err != nil {
			return false, err
		}
		if kept.Username != "" || kept.IdentityToken != "" {
			if _, err := k.run(ctx, helper, "erase", serverName(name)); err != nil && !errors.Is(err, errNothingKept) {
				return false, err
			}
			gone = true
		}
		k.forget(helper + "\n" + serverName(name))
	}
	for _, key := range d.names(name) {
		delete(d.auths, key)
		gone = true
	}
	return gone, nil
}

// edit changes the file that logins are put in, with nobody else in between. f reports whether to write it.
func (k *Keychain) edit(ctx context.Context, f func(path string, docker bool, d *document) (bool, error)) (err error) {
	path, docker, err := k.target()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keeping credentials: %w", err)
	}
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("keeping credentials: locking %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }() // the lock's file stays: another may wait for it
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	data, err := readFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping credentials: %w", err)
	}
	d, err := parseDocument(data)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	write, err := f(path, docker, d)
	if !write {
		return err
	}
	return errors.Join(err, d.save(path))
}

// save replaces the file.
func (d *document) save(path string) (err error) {
	if d.rest == nil {
		d.rest = map[string]json.RawMessage{}
	}
	if d.rest["auths"], err = json.Marshal(d.auths); err != nil {
		return err
	}
	text, err := json.MarshalIndent(d.rest, "", "\t")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".auth-*") // 0600
	if err != nil {
		return fmt.Errorf("keeping credentials: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
			err = fmt.Errorf("keeping credentials: %w", err)
		}
	}()
	_, err = tmp.Write(append(text, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
