package api

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"payments/internal/access"
	"payments/internal/idempotency"
	"payments/internal/payment"
)

// keyResource has its secret, or the part of it that the caller gets, in the first answer
// alone: the stored answer, and so every replay, has null there.
type keyResource struct {
	ID         string         `json:"id"`
	Object     string         `json:"object"`
	Merchant   *string        `json:"merchant"`
	Role       access.Role    `json:"role"`
	Holder     *string        `json:"holder"`
	Networks   []netip.Prefix `json:"networks"` // empty: from anywhere
	CreatedAt  time.Time      `json:"created_at"`
	ApprovedAt *time.Time     `json:"approved_at"` // null: it does not work yet
	ExpiresAt  *time.Time     `json:"expires_at"`
	LastUsedAt *time.Time     `json:"last_used_at"`
	RevokedAt  *time.Time     `json:"revoked_at"`
	Replaces   *string        `json:"replaces"`
	ReplacedBy *string        `json:"replaced_by"`
	APIVersion string         `json:"api_version"`
	Secret     *string        `json:"secret"`
	SecretPart *string        `json:"secret_part"` // the first of who proposed it, the second of who approved it
}

func newKeyResource(k access.APIKey) keyResource {
	return keyResource{
		ID: k.ID, Object: "api_key", Merchant: given(k.MerchantID), Role: k.Role, Holder: given(k.Holder), Networks: append([]netip.Prefix{}, k.Networks...),
		CreatedAt: shown(k.CreatedAt), ApprovedAt: utc(k.ApprovedAt), ExpiresAt: utc(k.ExpiresAt), LastUsedAt: utc(k.LastUsedAt), RevokedAt: utc(k.RevokedAt),
		Replaces: k.Replaces, ReplacedBy: k.ReplacedBy, APIVersion: k.APIVersion,
	}
}

func (s *server) listKeys(ctx context.Context, c *call) error {
	merchantID, err := c.askedMerchant()
	if err != nil {
		return err
	}
	after, limit, err := s.page(c, payment.PrefixKey)
	if err != nil {
		return err
	}
	keys, err := s.Keys.List(ctx, merchantID, after, limit+1)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, pageOf(s, c, keys, limit, newKeyResource, func(k access.APIKey) string { return k.ID }))
}

type keyRequest struct {
	Mode      *string   `json:"mode"` // test or live
	Role      *string   `json:"role"`
	Merchant  *string   `json:"merchant"`   // of a merchant's roles
	Holder    *string   `json:"holder"`     // optional of a merchant's roles
	Networks  *[]string `json:"networks"`   // optional
	ExpiresAt *string   `json:"expires_at"` // optional
	// The newest if missing.
	APIVersion *string `json:"api_version"`
}

func (q keyRequest) spec(now time.Time) (access.KeySpec, error) {
	var f fields
	spec := access.KeySpec{Mode: mode(&f, q.Mode), Role: access.Role(take(&f, q.Role, "/role"))}
	known := slices.Contains(access.Roles(), spec.Role)
	if q.Role != nil && !known {
		f = append(f, payment.FieldError{Pointer: "/role", Code: "role_invalid", Message: "must be one of " + allowedOf(access.Roles())})
	}
	switch {
	case spec.Role.OfMerchant():
		if spec.MerchantID = take(&f, q.Merchant, "/merchant"); q.Merchant != nil && !payment.ValidID(payment.PrefixMerchant, spec.MerchantID) {
			f = append(f, payment.FieldError{Pointer: "/merchant", Code: "id_invalid", Message: "must be a merchant's id (mer_…)"})
		}
	case q.Merchant != nil:
		f = append(f, payment.FieldError{Pointer: "/merchant", Code: "member_unknown", Message: "belongs to the roles of a merchant"})
	}
	if q.Holder != nil || known && !spec.Role.OfMerchant() {
		spec.Holder = take(&f, q.Holder, "/holder")
	}
	f.holder(q.Holder, "/holder")
	if q.Networks != nil {
		if len(*q.Networks) > access.MaxNetworks {
			f = append(f, payment.FieldError{Pointer: "/networks", Code: "out_of_range", Message: "must have at most " + strconv.Itoa(access.MaxNetworks) + " networks"})
		}
		for i, text := range (*q.Networks)[:min(len(*q.Networks), access.MaxNetworks)] {
			n, err := access.ParseNetwork(text)
			if err != nil {
				f = append(f, payment.FieldError{Pointer: "/networks/" + strconv.Itoa(i), Code: "network_invalid", Message: err.Error()})
			}
			spec.Networks = append(spec.Networks, n)
		}
	}
	if q.ExpiresAt != nil {
		at, err := payment.ParseTime(*q.ExpiresAt)
		if err != nil || !at.After(now) {
			f = append(f, payment.FieldError{Pointer: "/expires_at", Code: "time_invalid", Message: "must be an RFC 3339 time that is still to come"})
		}
		spec.ExpiresAt = &at
	}
	spec.APIVersion = NewestVersion()
	if q.APIVersion != nil {
		spec.APIVersion = pinned(&f, q.APIVersion)
	}
	return spec, f.err()
}

func pinned(f *fields, given *string) string {
	date := take(f, given, "/api_version")
	if given != nil && !slices.Contains(Versions(), date) {
		*f = append(*f, payment.FieldError{Pointer: "/api_version", Code: "version_unknown", Message: "must be one of " + strings.Join(Versions(), ", ")})
	}
	return date
}

func mode(f *fields, given *string) access.Mode {
	m := access.Mode(take(f, given, "/mode"))
	if given != nil && m != access.ModeTest && m != access.ModeLive {
		*f = append(*f, payment.FieldError{Pointer: "/mode", Code: "mode_invalid", Message: "must be test or live"})
	}
	return m
}

func (s *server) createKey(ctx context.Context, c *call) error {
	var q keyRequest
	request, err := c.keyed(&q)
	if err != nil {
		return err
	}
	spec, err := q.spec(s.IDs.Now())
	if err != nil {
		return err
	}
	request = c.inNameOf(request, c.principal.KeyID)
	made, err := s.Keys.Create(ctx, s.by(ctx, c), request, spec, s.sealKey(request))
	if err != nil {
		return err
	}
	return s.showMade(ctx, c, request, made)
}

// by is the caller as the record of acts on keys has him.
func (s *server) by(ctx context.Context, c *call) access.By {
	_, err := s.Authorizer.Authorize(ctx, c.principal, access.KeysWrite)
	return access.By{
		KeyID: c.principal.KeyID, Holder: c.principal.Holder, Source: access.SourceAPI, Origin: peer(c.r).Unmap().String(), Others: err == nil,
	}
}

// approveKey cannot be repeated: the second part of the secret is in its answer alone.
func (s *server) approveKey(ctx context.Context, c *call) error {
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	part, k, err := s.Keys.Approve(ctx, s.by(ctx, c), chi.URLParam(c.r, "id"))
	if err != nil {
		return err
	}
	r := newKeyResource(k)
	r.SecretPart = &part
	return s.ok(ctx, c, r)
}

type rotateRequest struct {
	Mode    *string `json:"mode"`
	Overlap *int64  `json:"overlap_seconds"` // optional
}

func (s *server) rotateKey(ctx context.Context, c *call) error {
	var q rotateRequest
	request, err := c.keyed(&q)
	if err != nil {
		return err
	}
	var f fields
	m, overlap := mode(&f, q.Mode), defaultOverlap
	if q.Overlap != nil {
		if *q.Overlap < 0 || *q.Overlap > int64(access.MaxOverlap/time.Second) {
			f = append(f, payment.FieldError{Pointer: "/overlap_seconds", Code: "out_of_range", Message: "must be from 0 to " + strconv.FormatInt(int64(access.MaxOverlap/time.Second), 10)})
		} else {
			overlap = time.Duration(*q.Overlap) * time.Second
		}
	}
	if err := f.err(); err != nil {
		return err
	}
	request = c.inNameOf(request, c.principal.KeyID)
	made, err := s.Keys.Rotate(ctx, s.by(ctx, c), request, chi.URLParam(c.r, "id"), m, overlap, s.sealKey(request))
	if err != nil {
		return err
	}
	return s.showMade(ctx, c, request, made)
}

func (s *server) sealKey(request idempotency.Request) access.Render {
	return func(k access.APIKey) (idempotency.Response, error) {
		resp, err := s.seal(request, k.ID, "/v1/ops/keys", "", newKeyResource(k))
		resp.Status = http.StatusCreated
		return resp, err
	}
}

func (s *server) showMade(ctx context.Context, c *call, request idempotency.Request, m access.Made) error {
	if m.Replayed {
		return s.unseal(c, request, m.Response, true)
	}
	s.tellReplay(c, m.Response, false)
	r := newKeyResource(m.Key)
	r.Secret, r.SecretPart = given(m.Secret), given(m.Part)
	s.write(ctx, c.w, m.Response.Status, "application/json", r)
	return nil
}

type pinRequest struct {
	APIVersion *string `json:"api_version"`
}

// pinKey can be repeated, and taken back by the version before.
func (s *server) pinKey(ctx context.Context, c *call) error {
	var q pinRequest
	if err := c.decode(&q); err != nil {
		return err
	}
	var f fields
	date := pinned(&f, q.APIVersion)
	if err := f.err(); err != nil {
		return err
	}
	k, err := s.Keys.Pin(ctx, s.by(ctx, c), chi.URLParam(c.r, "id"), date)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, newKeyResource(k))
}

func (s *server) revokeKey(ctx context.Context, c *call) error {
	k, err := s.Keys.Revoke(ctx, s.by(ctx, c), chi.URLParam(c.r, "id"))
	if err != nil {
		return err
	}
	return s.ok(ctx, c, newKeyResource(k))
}
