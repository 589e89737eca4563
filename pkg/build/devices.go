package build

import (
	"strings"

	"github.com/manifestctl/manifestctl/pkg/cdi"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/llb"
)

// machineDevices are the devices of this machine. Their files are read when a step asks for one.
func (e *engine) machineDevices() *cdi.Devices {
	e.devices.Do(func() {
		dirs := e.o.DeviceDirs
		if dirs == nil {
			dirs = cdi.DefaultDirs()
		}
		var err error
		if e.found, err = cdi.Load(dirs); err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				e.o.Events.Emit(event.Event{Kind: event.Warning, Text: "devices: " + line})
			}
		}
	})
	return e.found
}

// devicesNamed are the devices that a step means by a name. Those of this machine are no use to nodes.
func (e *engine) devicesNamed(name string) []llb.Device {
	if e.o.Builder.Remote() {
		return nil
	}
	var out []llb.Device
	for _, d := range e.machineDevices().Find(name) {
		out = append(out, llb.Device{Name: d.Name, Free: d.Allowed})
	}
	return out
}

// device is what comes with the device of a full name.
func (e *engine) device(name string) (cdi.Edits, bool) {
	for _, d := range e.machineDevices().Find(name) {
		if d.Name == name {
			return d.Edits, true
		}
	}
	return cdi.Edits{}, false
}
