package main

import (
	"os/exec"
	"syscall"
)

// endWithUs lets a killed demo leave no child behind, and keeps a terminal's
// Ctrl-C from the child, whose end the demo orders.
func endWithUs(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
