//go:build !linux

package source

import "os"

// fileDir opens files of a tree for reading.
type fileDir struct{ last lastDir }

func (d *fileDir) open(root *os.Root, name string) (opened, error) {
	f, err := d.last.open(root, name)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *fileDir) close() error { return d.last.close() }

func listDir(root *os.Root, name string) ([]dirName, error) { return listing(root, name) }
