package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const provisionedBy = "pv.kubernetes.io/provisioned-by"

// provisioner gives every claim of its class a directory of this machine as a
// volume, and removes the directory with the claim. All nodes of the cluster
// share the machine's file system, so such a volume is ReadWriteMany.
type provisioner struct {
	client kubernetes.Interface
	name   string
	class  string
	root   string
}

// runVolumes is the component volume-provisioner. It looks at all claims and
// volumes after every event, so an event that was missed costs nothing.
func runVolumes() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig file")
	name := flag.String("provisioner", "", "provisioner name, as the StorageClass says it")
	class := flag.String("class", "", "name of the StorageClass")
	root := flag.String("root", "", "folder that holds one directory per volume")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		klog.Fatal(err)
	}
	p := &provisioner{client: kubernetes.NewForConfigOrDie(config), name: *name, class: *class, root: *root}
	p.run(server.SetupSignalContext())
}

func (p *provisioner) run(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(p.client, time.Minute)
	claims, volumes := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	wake := make(chan struct{}, 1)
	notify := func(any) {
		select {
		case wake <- struct{}{}:
		default: // a pass is due already
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: notify, UpdateFunc: func(_, o any) { notify(o) }, DeleteFunc: notify}
	for _, informer := range []cache.SharedIndexInformer{claims.Informer(), volumes.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			klog.Fatal(err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		wanted, _ := claims.Lister().List(labels.Everything())
		for _, claim := range wanted {
			p.report("provision", claim.Name, p.provision(ctx, claim))
		}
		existing, _ := volumes.Lister().List(labels.Everything())
		for _, volume := range existing {
			p.report("remove", volume.Name, p.remove(ctx, volume))
		}
	}
}

func (p *provisioner) report(verb, name string, err error) {
	if err != nil {
		klog.ErrorS(err, "cannot "+verb+" volume", "name", name)
	}
}

func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	class := claim.Spec.StorageClassName
	if class == nil || *class != p.class || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return nil
	}
	volume := p.volumeFor(claim)
	if err := os.MkdirAll(volume.Spec.HostPath.Path, 0o777); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	// Pods run as any user: fsGroup does not reach a hostPath, and MkdirAll obeys the umask.
	if err := os.Chmod(volume.Spec.HostPath.Path, 0o777); err != nil {
		return fmt.Errorf("open directory to all users: %w", err)
	}
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (p *provisioner) volumeFor(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	kind := corev1.HostPathDirectory
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: p.name}},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              p.class,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity: corev1.ResourceList{
				corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage],
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(p.root, name), Type: &kind},
			},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
		},
	}
}

func (p *provisioner) remove(ctx context.Context, volume *corev1.PersistentVolume) error {
	ours := volume.Annotations[provisionedBy] == p.name && volume.Spec.HostPath != nil
	if !ours || volume.Status.Phase != corev1.VolumeReleased || volume.DeletionTimestamp != nil {
		return nil
	}
	// The name, not the path: an edited path must never let this remove anything else.
	if err := os.RemoveAll(filepath.Join(p.root, filepath.Base(volume.Name))); err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	err := p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
