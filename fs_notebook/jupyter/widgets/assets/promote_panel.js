export default widget(
  model => `Promotion of ${model.get('promotion')?.name}`,
  panel => {
    const place = h('div', { class: 'fsw-box' });
    panel.body.append(place);
    panel.on('promotion', told => drawPromotion(panel, place, told, null));
  }
);
