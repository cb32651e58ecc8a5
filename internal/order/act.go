package order

import (
	"context"
	"fmt"

	"payments/internal/saga"
)

// The parts of a definition, as functions of a commit's unit and the saga's data. What they
// change of the data is kept with the saga.
type (
	doing  func(ctx context.Context, u *unit, i *saga.Instance, d *sagaData) (saga.Outcome, error)
	record func(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, o saga.Outcome) error
	ending func(ctx context.Context, u *unit, i *saga.Instance, d *sagaData) error
	giving func(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, why saga.Rejection) error
)

func local(do doing, r record) *saga.Local {
	return &saga.Local{
		Do: func(ctx context.Context, w saga.Unit, i *saga.Instance) (o saga.Outcome, err error) {
			err = with(w, i, func(u *unit, d *sagaData) error {
				o, err = do(ctx, u, i, d)
				return err
			})
			return o, err
		},
		Record: recording(r),
	}
}

func recording(r record) saga.Recorder {
	return func(ctx context.Context, w saga.Unit, i *saga.Instance, o saga.Outcome) error {
		return with(w, i, func(u *unit, d *sagaData) error { return r(ctx, u, i, d, o) })
	}
}

func hook(end ending) saga.Hook {
	return func(ctx context.Context, w saga.Unit, i *saga.Instance) error {
		return with(w, i, func(u *unit, d *sagaData) error { return end(ctx, u, i, d) })
	}
}

func parking(give giving) func(context.Context, saga.Unit, *saga.Instance, saga.Rejection) error {
	return func(ctx context.Context, w saga.Unit, i *saga.Instance, why saga.Rejection) error {
		return with(w, i, func(u *unit, d *sagaData) error { return give(ctx, u, i, d, why) })
	}
}

func with(w saga.Unit, i *saga.Instance, do func(*unit, *sagaData) error) error {
	u, ok := w.(*unit)
	if !ok {
		return fmt.Errorf("a step of an order has a %T, so that the worker's Config has no Open of this package", w)
	}
	d, err := decode(i.Data)
	if err != nil {
		return err
	}
	if err := do(u, &d); err != nil {
		return err
	}
	i.Data, err = d.encode()
	return err
}
