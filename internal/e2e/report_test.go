package e2e

import (
	"bytes"
	"context"
	"image/jpeg"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// browser starts Chromium without a window and returns a context for one page of it.
func browser(t *testing.T) context.Context {
	t.Helper()
	o := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(tool(t, "chromium")), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1200, 1400),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-sync", true), chromedp.WSURLReadTimeout(4*time.Minute))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, o...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// TestReportInABrowser builds for two platforms and clicks through the page that build --report writes.
func TestReportInABrowser(t *testing.T) {
	page := browser(t)
	w := everybody(t)[0]
	dir := hello(t, w, "checkout")
	out := filepath.Join(w.home, "report.html")
	ok(t, w.command(nil, "build", "--platform", "linux/amd64,linux/arm64", "--report", out, "-o", "type=oci,dest="+filepath.Join(w.home, "o.tar"), dir))

	var broken []string
	require.NoError(t, chromedp.Listen(page, func(ev any) {
		if e, ok := ev.(*runtime.EventExceptionThrown); ok {
			broken = append(broken, e.ExceptionDetails.Text)
		}
	}))
	require.NoError(t, chromedp.Do(page,
		chromedp.Navigate((&url.URL{Scheme: "file", Path: out}).String()), chromedp.WaitVisible(chromedp.CSS(".chart"))))
	count := func(selector string) int {
		return see(t, page, chromedp.Evaluate[int](`document.querySelectorAll('`+selector+`').length`))
	}
	assert.GreaterOrEqual(t, count(".bar"), 6, "a bar a step")
	assert.Equal(t, 1, count("#layers tr.shared"), "the configuration file is one layer for both platforms")
	assert.Equal(t, 3+2, count("#layers th"), "a column a platform")

	require.NoError(t, chromedp.Do(page, chromedp.Click(chromedp.CSS(".bar.emulated")), chromedp.WaitVisible(chromedp.CSS("#detail"))))
	detail := see(t, page, chromedp.Evaluate[string](`document.querySelector('#detail').innerText`))
	assert.Contains(t, detail, "linux/arm64")
	assert.Contains(t, detail, "emulated (qemu-aarch64")
	assert.Contains(t, detail, "rootfs.yaml:13")

	require.NoError(t, chromedp.Do(page, chromedp.Click(chromedp.CSS(`[data-class="emulated"]`))))
	assert.Equal(t, "none", see(t, page, chromedp.Evaluate[string](`getComputedStyle(document.querySelector('.bar.emulated')).display`)),
		"the legend hides a kind of steps")

	require.NoError(t, chromedp.Do(page, chromedp.Click(chromedp.CSS("[data-open]"))))
	assert.Equal(t, 1, count(".bar.on"), "a row of the table opens its step")
	picture := see(t, page, chromedp.FullScreenshot(90))
	_, err := jpeg.DecodeConfig(bytes.NewReader(picture))
	assert.NoError(t, err)
	assert.Empty(t, broken, "scripts that failed")
}

// see runs an action on the page that has a result.
func see[T any](t *testing.T, page context.Context, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(page, a)
	require.NoError(t, err)
	return v
}
