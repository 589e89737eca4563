package credentials

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Proxies are the variables that docker's config.json gives to containers and builds: "proxies", of the engine at host
// (DOCKER_HOST, as "tcp://10.0.0.1:2376") or else of "default". Each is there in upper and in lower case, as docker's
// command line has them. A file that cannot be read is an error, one that is not there is none; getenv nil is os.Getenv.
func Proxies(host string, getenv func(string) string) (map[string]string, error) {
	if getenv == nil {
		getenv = os.Getenv //nolint:forbidigo // the file to read is named by the environment, as for the peers
	}
	path := dockerConfig(getenv)
	if path == "" {
		return nil, nil
	}
	doc, err := place{name: path, path: path}.read()
	if err != nil {
		return nil, err
	}
	raw, ok := doc.rest["proxies"]
	if !ok {
		return nil, nil
	}
	type proxy struct{ HTTPProxy, HTTPSProxy, NoProxy, FTPProxy, AllProxy string }
	var by map[string]proxy
	if json.Unmarshal(raw, &by) != nil { // whose text could quote a password
		return nil, fmt.Errorf("reading %s: %w: \"proxies\" is not a table of engines", path, ErrInvalid)
	}
	p, ok := by[host]
	if !ok {
		p = by["default"]
	}
	out := map[string]string{}
	for name, value := range map[string]string{
		"HTTP_PROXY": p.HTTPProxy, "HTTPS_PROXY": p.HTTPSProxy, "NO_PROXY": p.NoProxy, "FTP_PROXY": p.FTPProxy, "ALL_PROXY": p.AllProxy,
	} {
		if value != "" {
			out[name], out[strings.ToLower(name)] = value, value
		}
	}
	return out, nil
}

// dockerConfig is where docker's config.json is by the environment; "" when that does not say.
func dockerConfig(env func(string) string) string {
	if dir := env("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	if home := homeDir(env); home != "" {
		return filepath.Join(home, ".docker", "config.json")
	}
	return ""
}
