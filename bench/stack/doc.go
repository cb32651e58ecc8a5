// Package stack runs what is measured as an operator would: Postgres, a broker, the simulator and the
// service are processes of their own, so that the CPU time of each can be told from the others'.
package stack
