package tools

import (
	"os/exec"
	"syscall"
)

// endWithUs makes the kernel end a child whose test process is killed. The signal comes with the end
// of the thread that started the child, so the caller's goroutine is locked to its thread.
func endWithUs(cmd *exec.Cmd, signal syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = signal
}
