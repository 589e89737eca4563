package spec

import (
	"bytes"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The schema's properties are the decoder's keys: the tables of objects are the truth.
func TestSchemaHasTheDecodersKeys(t *testing.T) {
	type properties struct {
		Properties  map[string]struct{ Description, Ref string } `json:"properties"`
		Description string                                       `json:"description"`
	}
	var doc struct {
		properties
		Defs map[string]json.RawMessage `json:"$defs"`
	}
	require.NoError(t, json.Unmarshal(Schema(), &doc))
	objects := map[string][]string{
		"when": whenObject.names(), "step": stepObject.names(), "file": fileObject.names(), "archive": archiveObject.names(),
		"copy": copyObject.names(), "mount": mountObject.names(), "accounts": accountsObject.names(),
		"group": groupObject.names(), "user": userObject.names(), "stage": stageObject.names(), "config": configObject.names(),
	}
	assert.ElementsMatch(t, documentObject.names(), slices.Collect(maps.Keys(doc.Properties)), "the document")
	for name, raw := range doc.Defs {
		var def properties
		require.NoError(t, json.Unmarshal(raw, &def))
		assert.NotEmpty(t, def.Description, "description of %s", name)
		assert.ElementsMatch(t, objects[name], slices.Collect(maps.Keys(def.Properties)), name)
		delete(objects, name)
	}
	assert.Empty(t, objects, "objects without a definition")
	var annotations struct {
		Properties struct {
			Annotations properties `json:"annotations"`
		} `json:"properties"`
	}
	require.NoError(t, json.Unmarshal(Schema(), &annotations))
	assert.ElementsMatch(t, annotationsObject.names(), slices.Collect(maps.Keys(annotations.Properties.Annotations.Properties)))
}

// TestSchema validates the same documents as Load: what is good is good for editors too, and
// what is of a wrong shape is refused.
func TestSchema(t *testing.T) {
	raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("rootfs.json", raw))
	schema, err := c.Compile("rootfs.json")
	require.NoError(t, err)

	validate := func(t *testing.T, file string) error {
		a, err := txtar.ParseFile(file)
		require.NoError(t, err)
		for _, f := range a.Files {
			if f.Name != "rootfs.yaml" {
				continue
			}
			var doc any
			if err := yaml.Unmarshal(bytes.TrimPrefix(f.Data, []byte("\ufeff")), &doc); err != nil {
				return err
			}
			return schema.Validate(plain(doc))
		}
		t.Fatal("no rootfs.yaml")
		return nil
	}
	valid, err := filepath.Glob("testdata/valid/*.txtar")
	require.NoError(t, err)
	for _, file := range valid {
		t.Run(filepath.Base(file), func(t *testing.T) { require.NoError(t, validate(t, file)) })
	}
	for _, name := range []string{
		"scalar_document", "list_document", "version_missing", "version_unknown", "version_string", "from_missing", "unknown_key_top",
		"wrong_types", "wrong_types_config", "platforms_empty", "args_bad", "stage_bad", "step_kinds", "step_when",
		"file_mode", "file_xattrs", "file_device", "archive_bad", "copy_bad", "remove_bad", "run_bad", "mounts_bad", "accounts_bad", "config_bad",
	} {
		t.Run(name, func(t *testing.T) {
			assert.Error(t, validate(t, filepath.Join("testdata/invalid", name+".txtar")))
		})
	}
}

// plain makes a decoded document what encoding/json would have made of it.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case map[any]any:
		out := map[string]any{}
		for k, x := range v {
			b, _ := json.Marshal(k)
			out[string(bytes.Trim(b, `"`))] = plain(x)
		}
		return out
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case []byte:
		return string(v)
	case uint64:
		return json.Number(string(mustJSON(v)))
	case int64:
		return json.Number(string(mustJSON(v)))
	case float64:
		return json.Number(string(mustJSON(v)))
	}
	return v
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}
