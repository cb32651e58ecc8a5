package payment

// CaptureMethod says who decides when an authorized payment is captured.
type CaptureMethod string

// Automatic captures as soon as the payment is authorized; manual waits for
// POST /v1/payments/{id}/capture and lapses when that does not come in time.
const (
	CaptureAutomatic CaptureMethod = "automatic"
	CaptureManual    CaptureMethod = "manual"
)

// ParseCaptureMethod is false for a word that is none.
func ParseCaptureMethod(s string) (CaptureMethod, bool) {
	m := CaptureMethod(s)
	return m, m == CaptureAutomatic || m == CaptureManual
}
