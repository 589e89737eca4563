package credentials_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/credentials"
)

func TestProxies(t *testing.T) {
	both := func(upper, lower, value string) map[string]string {
		return map[string]string{upper: value, lower: value}
	}
	for name, tc := range map[string]struct {
		text    string // "": no file
		host    string
		want    map[string]string
		wantErr error
	}{
		"no file":    {},
		"empty file": {text: "\n{}"},
		"default":    {text: `{"proxies":{"default":{"httpProxy":"http://p:3128"}}}`, want: both("HTTP_PROXY", "http_proxy", "http://p:3128")},
		"all": {
			text: `{"proxies":{"default":{"httpsProxy":"a","noProxy":"b","ftpProxy":"c","allProxy":"d"}}}`,
			want: map[string]string{"HTTPS_PROXY": "a", "https_proxy": "a", "NO_PROXY": "b", "no_proxy": "b", "FTP_PROXY": "c", "ftp_proxy": "c", "ALL_PROXY": "d", "all_proxy": "d"},
		},
		"of the engine":      {text: `{"proxies":{"default":{"httpProxy":"a"},"tcp://e":{"httpProxy":"b"}}}`, host: "tcp://e", want: both("HTTP_PROXY", "http_proxy", "b")},
		"of another engine":  {text: `{"proxies":{"default":{"httpProxy":"a"},"tcp://e":{"httpProxy":"b"}}}`, host: "tcp://f", want: both("HTTP_PROXY", "http_proxy", "a")},
		"no table":           {text: `{"proxies":["http://u:secret@p"]}`, wantErr: credentials.ErrInvalid},
		"not JSON":           {text: `proxies: http://u:secret@p`, wantErr: credentials.ErrInvalid},
		"beside credentials": {text: `{"auths":{"r":{"auth":"eDp5"}},"proxies":{"default":{"noProxy":"*"}}}`, want: both("NO_PROXY", "no_proxy", "*")},
	} {
		for where, in := range map[string]struct{ variable, file string }{"HOME": {"HOME", ".docker/config.json"}, "DOCKER_CONFIG": {"DOCKER_CONFIG", "config.json"}} {
			t.Run(name+"/"+where, func(t *testing.T) {
				dir := t.TempDir()
				if tc.text != "" {
					write(t, filepath.Join(dir, in.file), tc.text)
				}
				got, err := credentials.Proxies(tc.host, func(v string) string { return map[string]string{in.variable: dir}[v] })
				require.ErrorIs(t, err, tc.wantErr)
				if err != nil {
					assert.NotContains(t, err.Error(), "secret")
				}
				assert.Len(t, got, len(tc.want))
				for k, v := range tc.want {
					assert.Equal(t, v, got[k], k)
				}
			})
		}
	}
	got, err := credentials.Proxies("", func(string) string { return "" })
	require.NoError(t, err)
	assert.Empty(t, got)
}
